"""Reads the authors' released checkpoints as checkpoints of ours, with the released behaviour switched on."""

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
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_infer.options import FrameSampling
from hbi_training.model.hbi import HBI
from hbi_training.weights.checkpoint import Checkpoint
from hbi_training.weights.released import (
    check_layout,
    count_answers,
    has_answer_head,
    load_released,
    released_config,
    some,
)
from hbi_training.weights.tensor_files import load_tensors

ReleasedTask = Literal["retrieval", "vqa"]
PUBLISHED_MAX_WORDS: dict[ReleasedTask, int] = {"retrieval": 24, "vqa": 32}
"""Task -> tokens of a text in the authors' published runs on MSR-VTT."""


@dataclass(frozen=True)
class Released:
    """A released checkpoint that was read.

    Attributes:
        checkpoint: The model.
        origins: Lines on how many tensors came from which file, and which were left out.
    """

    checkpoint: Checkpoint
    origins: tuple[str, ...]


def load_upstream(
    checkpoint: Path | str,
    *,
    clip: Path | str | None = None,
    task: ReleasedTask | None = None,
    answers: Path | str | None = None,
    max_words: int | None = None,
    sampling: FrameSampling | None = None,
    tokenizer_json: str | None = None,
) -> Released:
    """Reads a released checkpoint.

    Args:
        checkpoint: State dict of retrieval or of question answering.
        clip: CLIP's own weights, for tensors that the checkpoint lacks.
        task: "retrieval" or "vqa"; by default the one that the checkpoint was trained for.
        answers: The released list of answers, train_ans2label.json; needed to answer questions.
        max_words: Length that texts are padded to, on which the released merging depends. By default
            `PUBLISHED_MAX_WORDS`.
        sampling: Sampling of frames; the image size is the model's own.
        tokenizer_json: Text of the tokenizer's file; by default CLIP's.

    Raises:
        ExportError: A file cannot be read, or does not belong to the others.
        TrainingError: Tensors are missing or do not fit together, or a size is impossible.
    """
    checkpoint = Path(checkpoint)
    clip = None if clip is None else Path(clip)
    answers = None if answers is None else Path(answers)
    released, origins = _completed(load_tensors(checkpoint), checkpoint, clip)
    where = str(checkpoint)
    if not any(name.startswith("clip.") for name in released):
        where += " (no clip. tensor in it; --clip takes CLIP's own weights)"
    is_vqa = has_answer_head(released)
    max_words = max_words or PUBLISHED_MAX_WORDS["vqa" if is_vqa else "retrieval"]
    answering = (task or ("vqa" if is_vqa else "retrieval")) == "vqa"
    labels = _read_answers(answers, count_answers(released, where) if answering else 0, where)
    config = released_config(released, max_words=max_words, answers=labels, sampling=sampling, where=where)
    tokenizer_json = tokenizer_json or clip_tokenizer_json()
    made, known = Tokenizer.from_json(tokenizer_json).vocabulary_size, config.clip["text_config"]["vocab_size"]
    if made > known:
        raise ExportError(f"{where} knows {known} tokens and CLIP's tokenizer makes {made}: it is not a released model")
    model = HBI(config)
    layout = check_layout(released, model.state_dict())
    layout.require(where)
    load_released(model, released)
    left_out = (("not needed for inference", layout.unused), ("not part of this model", layout.unknown))
    origins += [f"left out, {why}: {_grouped(names)}" for why, names in left_out if names]
    provenance = {"recipe": {"released_checkpoint": checkpoint.name, "sha256": _sha256(checkpoint)}}
    notice = "learnt from questions: it ranks videos by questions about them" if is_vqa else ""
    return Released(Checkpoint(model.eval(), tokenizer_json, checkpoint.stem, notice, provenance), tuple(origins))


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
    """Counts names by their first parts: clip.visual.* (152), banzhafmodel.* (12)."""
    parts = Counter(".".join(name.split(".")[: 2 if name.startswith("clip.") else 1]) for name in names)
    return some([f"{part}.* ({count})" if count > 1 else part for part, count in parts.items()], 8)


def _read_answers(path: Path | None, num_answers: int, where: str) -> tuple[str, ...]:
    """Reads the answers in the order of their labels; none for a model that answers no questions."""
    if not num_answers:
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
    gaps = sorted(set(range(num_answers)) - by_label.keys())
    if gaps or len(labels) != num_answers:
        missing = f"; no answer has the number {some([str(gap) for gap in gaps])}" if gaps else ""
        raise ExportError(f"{path} has {len(labels)} answers and the classifier {num_answers}{missing}")
    return tuple(by_label[label] for label in range(num_answers))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
