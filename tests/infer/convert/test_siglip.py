"""SigLIP in the layout of `transformers`: its features, scale and bias are those that `transformers` has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbi_engines.registry import open_engine
from hbi_infer.convert.converter import convert_model, read_model
from hbi_infer.convert.towers import frame_graph
from hbi_infer.errors import HBIError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.token_model import TokenModel
from tests.builders.command_line import run
from tests.builders.saved_models import edited_json, save_siglip, tiny_siglip
from tests.infer.convert.test_clip import error, frames_of, normalised

TEXTS = ["a dog on a beach", "two cars", "", "Cars! on a DOG.", "word " * 30]
HALF = (0.5, 0.5, 0.5)


def siglip_features_agree(bundle: Path, model: Any, device: str = "cpu", colours: Any = (HALF, HALF)) -> None:
    ours = TokenModel.load(bundle, device=device)
    batch = ours.tokenize(TEXTS)
    assert batch.ids.shape == (len(TEXTS), model.config.text_config.max_position_embeddings)
    frames, mask = frames_of(ours.bundle.manifest.sampling.image_size)
    with torch.no_grad():
        texts = model.get_text_features(input_ids=torch.from_numpy(batch.ids)).pooler_output
        pixels = normalised(frames, *colours)
        pictures = model.get_image_features(pixel_values=pixels).pooler_output.unflatten(0, (2, 12))
    assert error(ours.encode_tokens(batch)["video"].tokens[:, 0], texts) <= 1e-5
    found = ours.encode_video(frames, mask)["frame"].tokens[mask]
    assert error(found, pictures[torch.from_numpy(mask)]) <= 1e-5


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vision": {"image_size": 37}},
        {
            "text": {"num_hidden_layers": 1, "hidden_size": 32, "projection_size": 48},
            "vision": {"num_hidden_layers": 1},
        },
    ],
    ids=["usual", "left over pixels", "one layer, projected"],
)
def test_features_are_those_of_transformers(settings: dict[str, Any], device: str, tmp_path: Path) -> None:
    model = tiny_siglip(**settings)
    side = model.config.vision_config.image_size
    folder = save_siglip(model, tmp_path / "siglip", size={"height": side, "width": side})
    convert_model(folder, tmp_path / "bundle", name="tiny")
    siglip_features_agree(tmp_path / "bundle", model, device)


def test_scale_bias_and_pictures_stand_in_the_manifest(tmp_path: Path) -> None:
    model = tiny_siglip()
    folder = save_siglip(model, tmp_path / "siglip", resample=2, image_mean=[0.4, 0.5, 0.6], image_std=[0.3, 0.4, 0.5])
    manifest = convert_model(folder, tmp_path / "bundle", name="tiny")
    assert manifest.logit_scale == pytest.approx(np.exp(4.7))
    assert manifest.logit_bias == pytest.approx(-12.5)
    assert Bundle.load(tmp_path / "bundle").manifest == manifest
    assert (manifest.sampling.fit, manifest.sampling.interpolation) == ("squash", "bilinear")
    assert (manifest.max_words, manifest.width) == (12, 48)
    siglip_features_agree(tmp_path / "bundle", model, colours=((0.4, 0.5, 0.6), (0.3, 0.4, 0.5)))
    assert (
        "\npairs   a score s has the probability sigmoid(109.9 * s -12.5)\n" in run("info", tmp_path / "bundle").stdout
    )


def test_keys_and_values_of_patches_are_not_computed_for_the_pooling(tmp_path: Path) -> None:
    tower = read_model(save_siglip(tiny_siglip(), tmp_path / "siglip")).vision
    shapes = {spec.name: spec.shape for spec in open_engine(frame_graph(tower).content, "cpu").outputs}
    assert shapes["features"] == ("num_frames", 48)
    import onnx

    model = onnx.load_from_string(frame_graph(tower).content)
    sizes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    assert sizes["head.scores.weight"] == (48, 4), "one vector a head"
    assert sizes["head.value.weight"] == (4, 48, 12)


def of_vision(**values: Any) -> Any:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edited_json(folder / "config.json", vision_config={**config["vision_config"], **values})

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: edited_json(folder / "tokenizer.json", model={"type": "WordPiece"}), "not SigLIP's tokenizer"),
        (of_vision(vision_use_head=False), "vision_use_head is False; only True is supported"),
        (of_vision(num_attention_heads=7), "num_attention_heads is 7; only a divisor of 48"),
        (of_vision(num_channels=4), "num_channels is 4; only 3 is supported"),
        (of_vision(patch_size=16), r"patch_embedding.weight is \(48, 3, 8, 8\) float32, and by its configuration it"),
        (lambda folder: edited_json(folder / "config.json", model_type="siglip2"), "a model of the kind 'siglip2'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(edit: Any, message: str, tmp_path: Path) -> None:
    folder = save_siglip(tiny_siglip(), tmp_path / "siglip")
    edit(folder)
    with pytest.raises(HBIError) as raised:
        convert_model(folder, tmp_path / "bundle", name="tiny")
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_model_of_real_size(tmp_path: Path) -> None:
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig()).eval()  # base, patches of 16
    folder = save_siglip(model, tmp_path / "siglip", size={"height": 224, "width": 224})
    convert_model(folder, tmp_path / "bundle", name="siglip")
    siglip_features_agree(tmp_path / "bundle", model)
