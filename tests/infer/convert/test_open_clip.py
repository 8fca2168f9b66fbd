"""CLIP in OpenCLIP's own layout: the weights of a model of `transformers`, renamed, give its features."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hbi_infer.convert.converter import convert_model
from hbi_infer.errors import HBIError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.tokenizer import clip_tokenizer_json
from tests.builders.saved_models import edited_json, save, save_open_clip, tiny_clip
from tests.infer.convert.test_clip import features_agree


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("prefix", ["", "text."])
def test_features_are_those_of_the_same_weights(quick: bool, prefix: str, tmp_path: Path) -> None:
    act = {"hidden_act": "quick_gelu" if quick else "gelu"}
    model = tiny_clip(text=act, vision=act)
    folder = save_open_clip(model, tmp_path / "clip", quick_gelu=quick, prefix=prefix)
    convert_model(folder, tmp_path / "bundle", name="tiny")
    features_agree(tmp_path / "bundle", model)


def test_a_pytorch_file_alone_and_settings_of_norms(tmp_path: Path) -> None:
    model = tiny_clip(text={"layer_norm_eps": 1e-3}, vision={"layer_norm_eps": 1e-2})
    folder = save_open_clip(model, tmp_path / "clip", quick_gelu=True)
    torch.save(load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    change(folder, "text_cfg", norm_kwargs={"eps": 1e-3}, pool_type="eos", eos_id=49407)
    change(folder, "vision_cfg", norm_kwargs={"eps": 1e-2}, patch_dropout=0.5)
    convert_model(folder, tmp_path / "bundle", name="tiny")
    features_agree(tmp_path / "bundle", model)


def test_a_folder_of_both_layouts_is_one_model(tmp_path: Path) -> None:
    model = tiny_clip()
    folder = save_open_clip(model, tmp_path / "clip", quick_gelu=True)
    save(model, folder, size=32, crop_size=32)
    convert_model(folder, tmp_path / "both", name="tiny")
    (folder / "model.safetensors").unlink()
    convert_model(folder, tmp_path / "own", name="tiny")
    for name in ("both", "own"):
        features_agree(tmp_path / name, model)
        assert Bundle.load(tmp_path / name).manifest.sampling.rounding == "transformers"


def test_the_tokenizer_of_the_folder_goes_before_clips_own(tmp_path: Path) -> None:
    folder = save_open_clip(tiny_clip(), tmp_path / "clip", quick_gelu=True)
    convert_model(folder, tmp_path / "own", name="tiny")
    assert Bundle.load(tmp_path / "own").tokenizer_json() == clip_tokenizer_json()
    (folder / "tokenizer.json").write_text(clip_tokenizer_json(["a dog on a beach"]))
    convert_model(folder, tmp_path / "given", name="tiny")
    assert len(Bundle.load(tmp_path / "given").tokenizer_json()) < len(clip_tokenizer_json()) / 10


def change(folder: Path, part: str, **values: Any) -> None:
    model = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    edited_json(folder / "open_clip_config.json", model_cfg={**model, part: {**model[part], **values}})


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("vision_cfg", {"timm_model_name": "vit_base"}, "vision_cfg: timm_model_name is 'vit_base', a setting that is"),
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, r"layers is \[3, 4, 6, 3\]; only a whole number"),
        ("vision_cfg", {"attentional_pool": True}, "attentional_pool is True; only False is supported"),
        ("vision_cfg", {"pool_type": "avg"}, "pool_type is 'avg'; only 'tok' is supported"),
        ("vision_cfg", {"ls_init_value": 1e-5}, "ls_init_value is 1e-05; only 0 is supported"),
        ("vision_cfg", {"head_width": 7}, "head_width is 7; only a divisor of 48 is supported"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "hf_model_name is 'roberta-base', a setting that is not known"),
        ("text_cfg", {"hf_tokenizer_name": "other"}, "has neither tokenizer.json nor vocab.json and merges.txt"),
        ("text_cfg", {"pool_type": "last"}, "pool_type is 'last'; only 'argmax' or 'eos' is supported"),
        ("text_cfg", {"pool_type": "eos"}, "eos_id is 2; only 49407 is supported"),
        ("text_cfg", {"width": 64}, r"token_embedding.weight is \(49408, 32\) float32, .* must be \(49408, 64\)"),
        ("text_cfg", {"norm_kwargs": {"elementwise_affine": False}}, "elementwise_affine is False, a setting that is"),
    ],
)
def test_what_is_not_done_is_refused_by_its_key(part: str, values: Any, message: str, tmp_path: Path) -> None:
    folder = save_open_clip(tiny_clip(), tmp_path / "clip", quick_gelu=True)
    change(folder, part, **values)
    with pytest.raises(HBIError) as raised:
        convert_model(folder, tmp_path / "bundle", name="tiny")
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)
