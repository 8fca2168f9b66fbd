"""Trained models on disk: configuration, weights and tokenizer, in formats that hold no code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import PAD_ID, Tokenizer
from hbi_training.model.clip_encoders import load_clip, refuse_unknown_sizes
from hbi_training.model.clip_preprocessing import clip_preprocessing, require_pictures
from hbi_training.model.hbi import HBI
from hbi_training.model.mean_pooled_clip import MeanPooledCLIP

Model = HBI | MeanPooledCLIP

KINDS: dict[str, Any] = {kind.kind: kind for kind in (HBI, MeanPooledCLIP)}
"""Kind of model, as named in its configuration file -> its class."""


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer and its provenance.

    Attributes:
        model: Model in evaluation mode.
        tokenizer_json: Content of tokenizer.json, see `hbi_infer.model.tokenizer`.
        name: Name of the model.
        notice: One line that users of the model are told.
        provenance: Recipe, data, seed, code version and measured metrics.
    """

    model: Model
    tokenizer_json: str
    name: str
    notice: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer that the model was trained with."""
        return Tokenizer.from_json(self.tokenizer_json)


def build_model(section: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> Model:
    """Builds a model from its kind and the fields of its configuration.

    Args:
        section: `kind` and fields of the configuration. `clip` is either a mapping for `transformers.CLIPConfig`, which
            gives random weights, or the name of a CLIP model on the hub or in a local folder, which gives its weights.
        tokenizer: Tokenizer whose vocabulary completes a mapping of `clip`; None leaves it as it is.

    Raises:
        TrainingError: The kind or a key is unknown, the CLIP model cannot be loaded, or its own pictures are not those
            of the sampling.
    """
    values = dict(section)
    kind = values.pop("kind", "hbi")
    if kind not in KINDS:
        raise TrainingError(f"the model's kind is '{kind}'; known kinds: {', '.join(KINDS)}")
    model_type = KINDS[kind]
    clip, source = None, values.get("clip")
    if isinstance(source, str):
        clip = load_clip(source)
        values["clip"] = clip.config.to_dict()
    elif tokenizer is not None and "clip" in values:
        values["clip"] = with_vocabulary(values["clip"], tokenizer)
        refuse_unknown_sizes(values["clip"])
    config = model_type.config_type.from_json(values)
    if isinstance(source, str):
        require_pictures(clip_preprocessing(source, config.sampling.image_size), config.sampling)
    model: Model = model_type(config, clip)
    return model


def with_vocabulary(clip: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Adds the tokenizer's vocabulary to a CLIP configuration that has none."""
    ids = {
        "vocab_size": tokenizer.vocabulary_size,
        "bos_token_id": tokenizer.sot_id,
        "eos_token_id": tokenizer.eot_id,
        "pad_token_id": PAD_ID,
    }
    return {**clip, "text_config": {**ids, **clip.get("text_config", {})}}


def start_from(initial: Checkpoint, model: Model, tokenizer: Tokenizer) -> str:
    """Copies the weights of another model, tensor by tensor where name and shape agree.

    Rows of a table of words are copied word by word, so that a model may begin with more words than the other had.

    Args:
        initial: Checkpoint to copy from.
        model: Model to change in place.
        tokenizer: Tokenizer of the model.

    Returns:
        A line that counts the copied tensors.

    Raises:
        TrainingError: The two models share no tensor.
    """
    given, own = initial.model.state_dict(), model.state_dict()
    known, wanted = initial.tokenizer.vocabulary(), tokenizer.vocabulary()
    shared = [(row, known[token]) for token, row in wanted.items() if token in known]
    rows, old_rows = (torch.tensor(part) for part in zip(*shared, strict=True))
    taken = 0
    for name, tensor in own.items():
        old = given.get(name, torch.empty(0))
        if tensor.shape == old.shape:
            tensor.copy_(old)
        elif (tensor.shape[:1], old.shape) == ((len(wanted),), (len(known), *tensor.shape[1:])):
            tensor[rows] = old[old_rows]
        else:
            continue
        taken += 1
    if not taken:
        raise TrainingError(
            f"the model {initial.name} shares no weights with the recipe's model: remove initial from the recipe"
        )
    return f"{taken} of {len(own)} tensors start from {initial.name}"


def save_checkpoint(checkpoint: Checkpoint, folder: Path | str) -> None:
    """Writes config.json, model.safetensors and tokenizer.json; an older checkpoint there is replaced as a whole."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    content = {
        "name": checkpoint.name,
        "notice": checkpoint.notice,
        "model": {"kind": checkpoint.model.kind, **checkpoint.model.config.to_json()},
        "provenance": checkpoint.provenance,
    }
    (partial / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    (partial / "tokenizer.json").write_text(checkpoint.tokenizer_json)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in checkpoint.model.state_dict().items()}
    save_file(state, partial / "model.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_checkpoint(folder: Path | str) -> Checkpoint:
    """Reads a checkpoint that `save_checkpoint` wrote.

    Raises:
        TrainingError: A file is missing or does not fit the others.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise TrainingError(
                f"{folder} has no {name}; a checkpoint is the folder that hbi-train wrote, runs/NAME/model"
            )
    try:
        content = json.loads((folder / "config.json").read_text())
        section, name, notice, provenance = (content[key] for key in ("model", "name", "notice", "provenance"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(
            f"{folder / 'config.json'} is not what hbi-train writes ({error}); if the folder holds a CLIP that "
            f"transformers saved, export it with: hbi-export clip {folder} -o BUNDLE"
        ) from error
    model = build_model(section)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise TrainingError(f"the weights of {folder} do not fit its config.json: {error}") from error
    tokenizer_json = (folder / "tokenizer.json").read_text()
    return Checkpoint(model.eval(), tokenizer_json, name, notice, provenance)
