"""Checkpoints: damaged ones are refused, and a model starts from another one's weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.frame_cache import Split
from hbi_training.run.trainer import Trainer
from hbi_training.weights.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint, start_from
from tests.builders.tiny_training import (
    ALL_TASKS,
    HBI_SECTION,
    tiny_recipe,
)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Any) -> None:
    with pytest.raises(TrainingError, match=r"has no config\.json"):
        load_checkpoint(tmp_path)


def test_a_model_starts_from_another_word_by_word() -> None:
    few, many = (clip_tokenizer_json(corpus) for corpus in (["a red ring"], ["what does a red ring do?", "it moves"]))
    old_words, new_words = Tokenizer.from_json(few), Tokenizer.from_json(many)
    torch.manual_seed(0)
    old, new = build_model(HBI_SECTION, old_words), build_model(ALL_TASKS, new_words)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    line = start_from(Checkpoint(old, few, "teacher"), new, new_words)
    given, after = old.state_dict(), new.state_dict()
    assert line == f"{len(given)} of {len(after)} tensors start from teacher"
    table = "word_encoder.text.embeddings.token_embedding.weight"
    for name, tensor in after.items():
        if name not in given:
            assert torch.equal(tensor, before[name]), name
        elif name != table:
            assert torch.equal(tensor, given[name]), name
    known, wanted = old_words.vocabulary(), new_words.vocabulary()
    assert len(wanted) > len(known)
    for token, row in wanted.items():
        expected = given[table][known[token]] if token in known else before[table][row]
        assert torch.equal(after[table][row], expected), token


def test_a_sampling_of_other_pictures_than_those_of_the_clip_is_refused(tmp_path: Path) -> None:
    CLIPModel(CLIPConfig(**HBI_SECTION["clip"])).save_pretrained(tmp_path)
    squash = {"do_center_crop": False, "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(squash))
    section = {"kind": "hbi", **HBI_SECTION, "clip": str(tmp_path)}
    with pytest.raises(TrainingError, match="sampling has fit crop, and the CLIP model's own pictures have fit squash"):
        build_model(section)
    squashed = build_model({**section, "sampling": {**HBI_SECTION["sampling"], "fit": "squash"}})
    assert squashed.config.sampling.fit == "squash"


def test_a_model_that_has_nothing_in_common_is_refused() -> None:
    tokenizer_json = clip_tokenizer_json(["a"])
    tokenizer = Tokenizer.from_json(tokenizer_json)
    model = build_model(HBI_SECTION, tokenizer)
    other = Checkpoint(build_model(HBI_SECTION, tokenizer), tokenizer_json, "empty")
    other.model.state_dict = dict  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="the model empty shares no weights with the recipe's model"):
        start_from(other, model, tokenizer)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"model": {', "config.json is not what hbi-train writes"),
        ("config.json", b'{"model_type": "clip"}', "export it with: hbi-export clip"),
        ("model.safetensors", None, "do not fit its config.json"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(
    splits: tuple[Split, Split], tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    trainer = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    save_checkpoint(Checkpoint(trainer.model, trainer.tokenizer_json, "tiny"), tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(TrainingError, match=re.escape(message)):
        load_checkpoint(tmp_path / "model")
