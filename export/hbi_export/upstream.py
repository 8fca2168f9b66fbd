"""The authors' released checkpoints become checkpoints of ours, with the released behaviour switched on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from hbi_infer.errors import ExportError
from hbi_infer.options import FrameSampling
from hbi_infer.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.answer_head import AnswerHead
from hbi_training.checkpoint import Checkpoint
from hbi_training.model import HBI
from hbi_training.tensor_files import load_tensors
from hbi_training.upstream import (
    ANSWER_HEAD,
    LayoutCheck,
    check_layout,
    has_answer_head,
    load_released,
    released_answer_head,
    released_config,
    some,
)

Task = Literal["retrieval", "vqa"]
PUBLISHED_MAX_WORDS: dict[Task, int] = {"retrieval": 24, "vqa": 32}
"""Of the runs on MSR-VTT that the authors published."""


@dataclass(frozen=True)
class Released:
    """A released checkpoint as read.

    Attributes:
        checkpoint: The model.
        answer_head: What answers questions; None without that task.
        answers: In the order of the head's logits.
        origins: Lines that say how many tensors came from which file and what was left out.
    """

    checkpoint: Checkpoint
    answer_head: AnswerHead | None
    answers: tuple[str, ...]
    origins: tuple[str, ...]


def load_upstream(
    checkpoint: Path,
    *,
    clip: Path | None = None,
    task: Task | None = None,
    answers: Path | None = None,
    max_words: int | None = None,
    sampling: FrameSampling | None = None,
    tokenizer_json: str | None = None,
) -> Released:
    """Reads a released checkpoint.

    Args:
        checkpoint: The state dict of its retrieval or of its question answering.
        clip: CLIP's own weights, for tensors that the checkpoint lacks.
        task: "retrieval", or "vqa"; by default what the checkpoint was trained for.
        answers: The released list of answers, train_ans2label.json; needed to answer questions.
        max_words: What texts are padded to; the released merging depends on it. By default `PUBLISHED_MAX_WORDS`.
        sampling: How videos become frames; the image size is the model's own.
        tokenizer_json: By default CLIP's.

    Raises:
        ExportError: A file cannot be read, or does not belong to the others.
        TrainingError: Tensors are missing or do not fit together, or a size is impossible.
    """
    released, origins = _completed(load_tensors(checkpoint), checkpoint, clip)
    where = str(checkpoint)
    if not any(name.startswith("clip.") for name in released):
        where += " (no clip. tensor in it; --clip takes CLIP's own weights)"
    is_vqa = has_answer_head(released)
    max_words = max_words or PUBLISHED_MAX_WORDS["vqa" if is_vqa else "retrieval"]
    config = released_config(released, max_words=max_words, sampling=sampling, where=where)
    tokenizer_json = tokenizer_json or clip_tokenizer_json()
    made, known = Tokenizer.from_json(tokenizer_json).vocabulary_size, config.clip["text_config"]["vocab_size"]
    if made > known:
        raise ExportError(f"{where} knows {known} tokens and CLIP's tokenizer makes {made}: it is not a released model")
    head = released_answer_head(released, where) if (task or ("vqa" if is_vqa else "retrieval")) == "vqa" else None
    labels = _read_answers(answers, head, where)
    model = HBI(config)
    layout = _load(model, head, released, where)
    left_out = (("not needed for inference", layout.unused), ("not part of this model", layout.unknown))
    origins += [f"left out, {why}: {_grouped(names)}" for why, names in left_out if names]
    provenance = {"recipe": {"released_checkpoint": checkpoint.name, "sha256": _sha256(checkpoint)}}
    notice = "learnt from questions: it ranks videos by questions about them" if is_vqa else ""
    return Released(
        Checkpoint(model.eval(), tokenizer_json, checkpoint.stem, notice, provenance),
        head.eval() if head is not None else None,
        labels,
        tuple(origins),
    )


def _load(model: HBI, head: AnswerHead | None, released: Mapping[str, Tensor], where: str) -> LayoutCheck:
    """Loads the model and its head, once nothing is missing that they need."""
    needed = model.state_dict()
    if head is not None:
        needed |= {ANSWER_HEAD + key: tensor for key, tensor in head.state_dict().items()}
    layout = check_layout(released, needed)
    layout.require(where)
    load_released(model, released)
    if head is not None:
        load_released(head, released, ANSWER_HEAD)
    return layout


def _completed(found: dict[str, Tensor], checkpoint: Path, clip: Path | None) -> tuple[dict[str, Tensor], list[str]]:
    """The checkpoint's tensors, with CLIP's own where it has none, and lines that say which came from where."""
    origins = [f"{len(found)} tensors from {checkpoint}"]
    if clip is None:
        return found, origins
    own = {f"clip.{name.removeprefix('clip.')}": tensor for name, tensor in load_tensors(clip).items()}
    added = {name: tensor for name, tensor in own.items() if name not in found}
    which = _grouped(added) if added else "the checkpoint has its own"
    origins.append(f"{len(added)} tensors from {clip}: {which}")
    return {**found, **added}, origins


def _grouped(names: Iterable[str]) -> str:
    """Names counted by their first parts: clip.visual.* (152), banzhafmodel.* (12)."""
    parts = Counter(".".join(name.split(".")[: 2 if name.startswith("clip.") else 1]) for name in names)
    return some([f"{part}.* ({count})" if count > 1 else part for part, count in parts.items()], 8)


def _read_answers(path: Path | None, head: AnswerHead | None, where: str) -> tuple[str, ...]:
    """The answers in the order of their labels."""
    if head is None:
        if path is not None:
            raise ExportError(f"{path} was given for a model that answers no questions: leave --answers out")
        return ()
    if path is None:
        raise ExportError(
            f"{where} answers questions by number: give the list of answers that belongs to it, "
            "--answers train_ans2label.json"
        )
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"cannot read the answers {path}: {error}") from error
    if not isinstance(labels, Mapping) or not all(type(label) is int for label in labels.values()):
        raise ExportError(f'{path} is no mapping of answers to numbers, such as {{"yes": 0, "no": 1}}')
    by_label = {label: answer for answer, label in labels.items()}
    gaps = sorted(set(range(head.num_answers)) - by_label.keys())
    if gaps or len(labels) != head.num_answers:
        missing = f"; no answer has the number {some([str(gap) for gap in gaps])}" if gaps else ""
        raise ExportError(f"{path} has {len(labels)} answers and the classifier {head.num_answers}{missing}")
    return tuple(by_label[label] for label in range(head.num_answers))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
