"""CLIP in the layout of `transformers`: its features are those that `transformers` computes, whatever its settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hbi_infer.convert.converter import convert_model
from hbi_infer.convert.preprocessing import IMAGE_MEAN, IMAGE_STD
from hbi_infer.errors import BundleError, HBIError
from hbi_infer.model.token_model import TokenModel
from tests.builders.saved_models import edited_json, save, tiny_clip

TEXTS = ["a dog on a beach", "two cars", "", "a <|endoftext|> b", "word " * 30]


def frames_of(size: int) -> tuple[np.ndarray, np.ndarray]:
    frames = np.random.default_rng(0).integers(0, 256, (2, 12, size, size, 3), dtype=np.uint8)
    return frames, np.arange(12) < np.array([[12], [5]])


def normalised(frames: np.ndarray, mean: Any = IMAGE_MEAN, deviation: Any = IMAGE_STD) -> torch.Tensor:
    pixels = (frames.reshape(-1, *frames.shape[2:]) / 255 - np.array(mean)) / np.array(deviation)
    return torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)


def error(found: np.ndarray, expected: torch.Tensor) -> float:
    assert found.shape == tuple(expected.shape)
    return float(np.abs(found - expected.numpy()).max() / np.abs(expected.numpy()).max())


def features_agree(bundle: Path, model: Any, tolerance: float = 1e-5, device: str = "cpu") -> None:
    ours = TokenModel.load(bundle, device=device)
    batch = ours.tokenize(TEXTS)
    frames, mask = frames_of(ours.bundle.manifest.sampling.image_size)
    with torch.no_grad():
        texts = model.get_text_features(
            input_ids=torch.from_numpy(batch.ids), attention_mask=torch.from_numpy(batch.mask).long()
        ).pooler_output
        pictures = model.get_image_features(pixel_values=normalised(frames)).pooler_output.unflatten(0, (2, 12))
    text, video = ours.encode_tokens(batch), ours.encode_video(frames, mask)
    assert error(text["video"].tokens[:, 0], texts) <= tolerance
    assert np.array_equal(text["frame"].tokens, text["video"].tokens)
    assert error(video["frame"].tokens[mask], pictures[torch.from_numpy(mask)]) <= tolerance
    units = torch.nn.functional.normalize(pictures, dim=-1)
    means = torch.stack([units[0].mean(0), units[1, :5].mean(0)])
    assert error(video["video"].tokens[:, 0], means) <= tolerance
    np.testing.assert_allclose(video["frame"].weights, mask / mask.sum(1, keepdims=True), rtol=1e-6)
    assert ours.bundle.manifest.logit_scale == pytest.approx(model.logit_scale.exp().item())


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"text": {"hidden_act": "gelu"}, "vision": {"hidden_act": "gelu"}},
        {"text": {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}, "vision": {"hidden_act": "relu"}},
        {"text": {"eos_token_id": 2}},
        {"vision": {"image_size": 37, "num_hidden_layers": 1}, "text": {"num_hidden_layers": 1}},
    ],
    ids=["quick", "exact", "other", "legacy end", "left over pixels, one layer"],
)
def test_features_are_those_of_transformers(settings: dict[str, Any], device: str, tmp_path: Path) -> None:
    model = tiny_clip(**settings)
    convert_model(save(model, tmp_path / "clip"), tmp_path / "bundle", name="tiny")
    features_agree(tmp_path / "bundle", model, device=device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_clip().to(dtype)
    convert_model(save(model, tmp_path / "clip"), tmp_path / "bundle", name="tiny")
    features_agree(tmp_path / "bundle", model.float())


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pytorch_file_alone_is_read_as_tensors(old_format: bool, tmp_path: Path) -> None:
    model = tiny_clip()
    folder = save(model, tmp_path / "clip")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=not old_format)
    convert_model(folder, tmp_path / "bundle", name="tiny")
    features_agree(tmp_path / "bundle", model)


def test_weights_in_parts(tmp_path: Path) -> None:
    model = tiny_clip()
    folder = tmp_path / "clip"
    save(model, folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    convert_model(folder, tmp_path / "bundle", name="tiny")
    features_agree(tmp_path / "bundle", model)
    edited_json(folder / "model.safetensors.index.json", weight_map={"logit_scale": "../outside.safetensors"})
    with pytest.raises(BundleError, match=r"names '\.\./outside\.safetensors'; parts lie beside it"):
        convert_model(folder, tmp_path / "other", name="tiny")


def test_settings_of_the_first_configurations_count(tmp_path: Path) -> None:
    model = tiny_clip()
    folder = save(model, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    edited_json(folder / "config.json", text_config={"hidden_size": 999}, text_config_dict=config["text_config"])
    convert_model(folder, tmp_path / "bundle", name="tiny")
    features_agree(tmp_path / "bundle", model)


def test_mean_and_deviation_are_the_models_own(tmp_path: Path) -> None:
    model = tiny_clip()
    folder = save(
        model, tmp_path / "clip", image_mean=[0.1, 0.2, 0.3], image_std=[0.9, 0.8, 0.7], crop_size=32, size=32
    )
    convert_model(folder, tmp_path / "bundle", name="tiny")
    frames, mask = frames_of(32)
    with torch.no_grad():
        pixels = normalised(frames, (0.1, 0.2, 0.3), (0.9, 0.8, 0.7))
        expected = model.get_image_features(pixel_values=pixels).pooler_output.unflatten(0, (2, 12))
    found = TokenModel.load(tmp_path / "bundle").encode_video(frames, mask)["frame"].tokens[mask]
    assert error(found, expected[torch.from_numpy(mask)]) <= 1e-5


def changed(folder: Path, edit: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def of_text(**values: Any) -> Any:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edited_json(folder / "config.json", text_config={**config["text_config"], **values})

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (remove_weights, "holds no weights; expected model.safetensors or"),
        (remove_tokenizer, "has neither tokenizer.json nor vocab.json and merges.txt"),
        (cut, "cannot read .*model.safetensors as safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json; a model's folder has that or"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read .*config.json .*fetch the model again"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config.json is \[\]; it must be an object"),
        (lambda folder: edited_json(folder / "config.json", model_type="blip"), "kind 'blip'; clip and siglip can"),
        (lambda folder: edited_json(folder / "config.json", projection_dim=25), r"\(24, 48\) .* must be \(25, 48\)"),
        (of_text(hidden_size=36), r"token_embedding.weight is \(49408, 32\) float32, and by its configuration it must"),
        (of_text(num_hidden_layers=4), "has no text_model.encoder.layers.3.self_attn.q_proj.weight, which its"),
        (of_text(num_attention_heads=5), "num_attention_heads is 5; only a divisor of 32 is supported"),
        (of_text(num_attention_heads=0), "num_attention_heads is 0; only a whole number from 1"),
        (of_text(hidden_act="mish"), "hidden_act is 'mish'; only 'quick_gelu' or"),
        (of_text(hidden_act=["gelu"]), r"hidden_act is \['gelu'\]; only"),
        (of_text(eos_token_id=7), "eos_token_id is 7; only 2, or 49407 as in the tokenizer, is supported"),
        (of_text(vocab_size=100), "the tokenizer makes 49,408 tokens and the model knows 100"),
        (of_text(layer_norm_eps="small"), "layer_norm_eps is 'small'; only a number from 0 to 1"),
        (lambda folder: changed(folder, lambda tensors: tensors.pop("logit_scale")), "has no logit_scale"),
        (
            lambda folder: changed(folder, lambda tensors: tensors.update(logit_scale=torch.tensor(float("nan")))),
            "logit_scale has values that are not finite",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(edit: Any, message: str, tmp_path: Path) -> None:
    folder = save(tiny_clip(), tmp_path / "clip")
    edit(folder)
    with pytest.raises(HBIError) as raised:
        convert_model(folder, tmp_path / "bundle", name="tiny")
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "bundle").exists()


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    from tests.builders.tensor_files import Harm

    folder = save(tiny_clip(), tmp_path / "clip")
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Harm(tmp_path / "trap")}, folder / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"pytorch_model.bin .* was not run \(it asks for posix.system\)"):
        convert_model(folder, tmp_path / "bundle", name="tiny")
    assert not (tmp_path / "trap").exists()


@pytest.mark.slow
def test_a_model_of_real_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    from transformers import CLIPConfig, CLIPModel

    model = CLIPModel(CLIPConfig()).eval()  # ViT-B/32
    convert_model(save(model, tmp_path / "clip"), tmp_path / "bundle", name="b32")
    features_agree(tmp_path / "bundle", model)
