"""Exported graphs against the models that they were traced from, and bundles that run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

from hbi_engines.engine import Engine
from hbi_engines.registry import open_engine
from hbi_export.bundle import clip_checkpoint, export_bundle
from hbi_export.graphs.modules import TracedGraph, named, trace_graph
from hbi_export.graphs.parity import OutputCheck, check_graph, compare
from hbi_export.graphs.sample_inputs import random_text_inputs, random_token_inputs, random_video_inputs
from hbi_export.pytorch.engine import TorchDevice, torch_graphs
from hbi_infer import HBI
from hbi_infer.errors import BundleError, ExportError, InputError, TrainingError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_infer.options import Decoding
from hbi_infer.tokens.banzhaf import banzhaf_interaction
from hbi_infer.tokens.levels import unit
from hbi_training.data.shapes import captions, scenes
from hbi_training.evaluation.caption_writing import write_captions
from hbi_training.model import hbi as training_model
from hbi_training.model.clip_encoders import IMAGE_MEAN, IMAGE_STD, load_clip
from hbi_training.model.config import HBIConfig
from hbi_training.model.token_interaction import Tokens
from hbi_training.weights.checkpoint import Checkpoint, build_model, save_checkpoint
from hbi_training.weights.rounding import Weights, rounded
from tests.builders.tiny_bundle import write_video
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION, TOWER

ROUNDING = 1e-4


def tiny_checkpoint(section: dict[str, Any], seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(0)
    corpus = [text for scene in scenes(0, "test", 20) for text in captions(scene, rng)]
    tokenizer_json = clip_tokenizer_json(corpus)
    torch.manual_seed(seed)
    model = build_model(section, Tokenizer.from_json(tokenizer_json)).eval()
    provenance = {"recipe": {"name": "tiny"}, "seed": seed, "metrics": {"validation/R@1": 12.5}}
    return Checkpoint(model, tokenizer_json, "tiny", "A note.", provenance)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint(HBI_SECTION)


def with_parts(checkpoint: Checkpoint, **parts: Any) -> Checkpoint:
    """The tiny model with further parts; a reconstruction lets something through, as after training."""
    torch.manual_seed(0)
    model = build_model({**HBI_SECTION, **parts}, checkpoint.tokenizer).eval()
    assert isinstance(model, training_model.HBI)
    if model.reconstruction is not None:
        torch.nn.init.normal_(model.reconstruction.gate.weight, std=0.3)
    return replace(checkpoint, model=model)


@pytest.fixture(scope="module")
def text_graph(checkpoint: Checkpoint) -> TracedGraph:
    return trace_graph(checkpoint, "text_encoder")


@pytest.fixture(scope="module")
def text_engine(text_graph: TracedGraph) -> Engine:
    return open_engine(text_graph.content, "cpu")


@pytest.fixture(scope="module")
def video_graph(checkpoint: Checkpoint) -> TracedGraph:
    return trace_graph(checkpoint, "video_encoder")


@pytest.fixture(scope="module")
def video_engine(video_graph: TracedGraph) -> Engine:
    return open_engine(video_graph.content, "cpu")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 5), length=st.integers(2, 40), seed=st.integers(0, 1000))
def test_the_text_graph_at_any_batch_and_length(
    text_graph: TracedGraph, text_engine: Engine, batch: int, length: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 500, (batch, length))
    mask = np.arange(length) < rng.integers(2, length + 1, (batch, 1))
    inputs = {"token_ids": ids, "token_mask": mask}
    actual, expected = text_engine.run(inputs), text_graph.eager(inputs)
    for name in text_graph.output_names:
        check = compare("text_encoder", "random", name, actual[name], expected[name])
        allowed = 0 if name.startswith("entity") else 1
        assert check.items_beyond <= allowed, check


@settings(deadline=None, max_examples=20)
@given(length=st.integers(2, 30), extra=st.integers(1, 10), seed=st.integers(0, 1000))
def test_padding_changes_nothing_in_the_text_graph(text_engine: Engine, length: int, extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 500, (1, length + extra))
    plain = text_engine.run({"token_ids": ids[:, :length], "token_mask": np.ones((1, length), bool)})
    padded = text_engine.run({"token_ids": ids, "token_mask": np.arange(length + extra)[None] < length})
    for level in ("entity", "action", "event"):
        real = int((plain[f"{level}_weights"] > 0).sum())
        for part in ("weights", "tokens"):
            one, two = plain[f"{level}_{part}"][:, :real], padded[f"{level}_{part}"][:, :real]
            np.testing.assert_allclose(one, two, rtol=0, atol=10 * ROUNDING)
        assert not padded[f"{level}_weights"][:, real:].any()


@settings(deadline=None, max_examples=15)
@given(frames=st.integers(1, 6), fill=st.integers(0, 255), seed=st.integers(0, 1000))
def test_padded_frames_change_nothing_in_the_video_graph(
    video_engine: Engine, frames: int, fill: int, seed: int
) -> None:
    clip = np.random.default_rng(seed).integers(0, 256, (1, 6, 32, 32, 3), dtype=np.uint8)
    mask = np.arange(6)[None] < frames
    other = np.where(mask[:, :, None, None, None], clip, np.uint8(fill))
    one = video_engine.run({"frames": clip, "frame_mask": mask})
    two = video_engine.run({"frames": other, "frame_mask": mask})
    for level in ("entity", "action", "event"):
        real = one[f"{level}_weights"] > 0
        np.testing.assert_allclose(one[f"{level}_weights"], two[f"{level}_weights"], rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(
            one[f"{level}_tokens"][real], two[f"{level}_tokens"][real], rtol=0, atol=10 * ROUNDING
        )


def test_a_bundle_answers_as_the_model_does(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checks = export_bundle(checkpoint, tmp_path / "bundle")
    assert {check.inputs for check in checks} == {"random", "drawn", "caption", "real"}
    assert all(check.cosine > 0.99 for check in checks)
    hbi = HBI.load(tmp_path / "bundle", device="cpu")
    manifest = hbi.bundle.manifest
    assert [(level.name, level.video_tokens, level.text_tokens) for level in manifest.levels] == [
        ("entity", 6, 40),
        ("action", 2, 10),
        ("event", 1, 5),
    ]
    assert manifest.notice == "A note."
    assert manifest.provenance.metrics == {"validation/R@1": 12.5}

    texts = ["a red circle moves left", "two big blue stars spin and then a small ring blinks"]
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 32, 32, 3), dtype=np.uint8)
    mask = np.arange(6) < np.array([[6], [4], [1]])
    batch = checkpoint.tokenizer.encode(texts, 40)
    with torch.no_grad():
        text = checkpoint.model.encode_text(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
        video = checkpoint.model.encode_video(torch.from_numpy(frames), torch.from_numpy(mask))
        expected = checkpoint.model.score(checkpoint.model.similarity(text, video)).numpy()
    actual = hbi.similarity(hbi.encode_text(texts), hbi.encode_video(frames, mask))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3)


def test_a_weight_is_zero_at_padding_and_nowhere_else() -> None:
    mask = torch.tensor([[True, True, False]])
    underflowed = Tokens(torch.ones(1, 3, 2), torch.tensor([[1.0, 0.0, 0.0]]), mask)
    weights = named({"entity": underflowed})["entity_weights"]
    assert ((weights > 0) == mask).all()
    assert weights[0, 1] < 1e-37


ANSWERS = ("red", "blue", "yes", "no", "two")


def two_clips() -> tuple[np.ndarray, np.ndarray]:
    """Noise, of all frames and of two."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 32, 32, 3), dtype=np.uint8)
    return frames, np.arange(6) < np.array([[6], [2]])


class Exported(NamedTuple):
    """A checkpoint and the bundle that was made of it."""

    checkpoint: Checkpoint
    folder: Path
    checks: list[OutputCheck]


@pytest.fixture(scope="module")
def answering(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    checkpoint = with_parts(checkpoint, answers=ANSWERS, answer_widths=(16, 24), answer_temperature=1.5)
    folder = tmp_path_factory.mktemp("answering") / "bundle"
    return Exported(checkpoint, folder, export_bundle(checkpoint, folder))


def test_bench_compares_a_bundle_with_pytorch(answering: Exported, tmp_path: Path) -> None:
    save_checkpoint(answering.checkpoint, tmp_path / "model")
    command = [sys.executable, "-c", "from hbi_infer.cli import main; main()", "bench", "--device", "cpu,torch"]
    command += ["--bundle", str(answering.folder), "--checkpoint", str(tmp_path / "model"), "--batch", "2"]
    command += ["--stage", "encode,text encode,answer", "--seconds", "0.01", "--json", str(tmp_path / "all.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, cpu, eager = json.loads((tmp_path / "all.json").read_text())["result"]["devices"]
    assert "eager PyTorch" in eager["reason"]
    assert eager["agreement"]["smallest_cosine"] > 0.9999
    assert 0 < eager["agreement"]["largest_difference"] < 1e-4
    for part in (cpu, eager):
        assert [made["stage"] for made in part["measurements"]] == ["encode", "text encode", "answer"]


def test_pytorch_has_a_module_of_every_graph(answering: Exported) -> None:
    """On a GPU all of them are measured, and `similarity` too, which NumPy computes here."""
    checkpoint, folder, _ = answering
    bundle = Bundle.load(folder)
    manifest, config = bundle.manifest, checkpoint.model.config
    assert {"similarity", "answerer"} <= manifest.graphs.keys()
    assert isinstance(config, HBIConfig)
    eager = TorchDevice("torch", "cpu", compiled=False, dtype=None)
    open_graph = torch_graphs(checkpoint, dict(manifest.graphs), eager)
    inputs = random_text_inputs(manifest.vocabulary_size, manifest.max_words)
    inputs |= random_video_inputs(manifest.sampling) | random_token_inputs(config)
    for name, spec in manifest.graphs.items():
        given = {tensor.name: inputs[tensor.name] for tensor in spec.inputs}
        made, expected = open_graph(name).run(given), open_engine(bundle.graph_bytes(name), "cpu").run(given)
        assert made.keys() == expected.keys()
        for output in spec.outputs:
            np.testing.assert_allclose(made[output.name], expected[output.name], atol=1e-4, err_msg=name)


def test_a_bundle_that_answers_and_explains(answering: Exported) -> None:
    checkpoint, folder, checks = answering
    graphs = {"video_encoder", "text_encoder", "interaction", "similarity", "answerer"}
    assert {check.graph for check in checks} == graphs
    on_tokens = ("interaction", "similarity", "answerer")
    assert all(not check.items_beyond for check in checks if check.graph in on_tokens)
    hbi = HBI.load(folder, device="cpu")
    scored = [hbi.encode_text(["a red circle", "two rings move left", "a"]), hbi.encode_video(*two_clips())]
    by_numpy = hbi.similarity(*scored)
    hbi._on_gpu = True  # what a GPU would run
    np.testing.assert_allclose(hbi.similarity(*scored), by_numpy, atol=ROUNDING)
    backwards = hbi.similarity(*reversed(scored))  # clips in the place of texts have other numbers of tokens
    np.testing.assert_allclose(backwards, by_numpy.T, atol=ROUNDING)
    assert (hbi.bundle.manifest.tasks, hbi.bundle.manifest.answers) == (("retrieve", "qa"), ANSWERS)

    questions = ["what is red", "what colour is the ring that moves left and then blinks?"]
    frames = np.random.default_rng(1).integers(0, 256, (2, 6, 32, 32, 3), dtype=np.uint8)
    mask = np.arange(6) < np.array([[6], [2]])
    batch = checkpoint.tokenizer.encode(questions, 40)
    model = checkpoint.model
    assert isinstance(model, training_model.HBI)
    assert model.answer_head is not None
    with torch.no_grad():
        text = model.encode_text(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
        video = model.encode_video(torch.from_numpy(frames), torch.from_numpy(mask))
        expected = model.answer_head.combine(model.answer(text, video)).numpy() / 1.5
    texts, clips = hbi.encode_text(questions), hbi.encode_video(frames, mask)
    np.testing.assert_allclose(hbi.answer_logits(texts, clips), expected, rtol=0, atol=ROUNDING)
    # A question by itself is shorter, and what it is padded with beside the other one counts nothing.
    alone = hbi.encode_text(questions[:1])
    assert alone["entity"].tokens.shape[1] < texts["entity"].tokens.shape[1]
    np.testing.assert_allclose(hbi.answer_logits(alone, clips)[0], expected[0], rtol=0, atol=ROUNDING)

    found = hbi.interaction(alone, clips)
    for level, (tokens, weights) in {name: (part.tokens, part.weights) for name, part in clips.items()}.items():
        cosines = np.einsum("btd,bvd->btv", unit(alone[level].tokens).repeat(2, 0), unit(tokens))
        words = alone[level].weights.repeat(2, 0)
        exact = banzhaf_interaction(cosines, words, weights, words > 0, weights > 0)
        np.testing.assert_allclose(found[level], exact, rtol=0, atol=1e-6)
        assert found[level].any()
    with pytest.raises(InputError, match="there are 2 texts and 3 clips; give as many of both, or one of either"):
        hbi.interaction(texts, hbi.encode_video(np.repeat(frames, [2, 1], 0), np.repeat(mask, [2, 1], 0)))


@pytest.mark.parametrize(("weights", "share"), [("float16", 0.7), ("int8", 0.5)])
def test_weights_stored_smaller(checkpoint: Checkpoint, tmp_path: Path, weights: Weights, share: float) -> None:
    full = trace_graph(checkpoint, "video_encoder")
    rounded_checkpoint = replace(checkpoint, model=rounded(checkpoint.model, weights))
    graph = trace_graph(rounded_checkpoint, "video_encoder", weights=weights)
    large = [
        weight for weight in onnx.load_from_string(graph.content).graph.initializer if np.prod(weight.dims) >= 1024
    ]
    assert large
    assert all(weight.data_type != onnx.TensorProto.FLOAT for weight in large)
    assert len(graph.content) < share * len(full.content)
    inputs = {"random": random_video_inputs(checkpoint.model.config.sampling)}
    assert not any(check.items_beyond for check in check_graph("video_encoder", graph, inputs, "entity"))
    far = compare(
        "video_encoder",
        "",
        "entity_tokens",
        full.eager(inputs["random"])["entity_tokens"],
        graph.eager(inputs["random"])["entity_tokens"],
    )
    assert 1e-5 < far.largest_difference < 0.05
    assert far.cosine > 0.999


def test_a_bundle_says_how_its_weights_are_stored(tmp_path: Path) -> None:
    export_bundle(tiny_checkpoint(MEAN_POOLED_SECTION), tmp_path / "bundle", weights="int8")
    assert Bundle.load(tmp_path / "bundle").manifest.graphs["video_encoder"].precision == "int8 weights"


def test_no_path_of_this_machine_is_in_a_graph(text_graph: TracedGraph, video_graph: TracedGraph) -> None:
    for graph in (text_graph, video_graph):
        assert b"site-packages" not in graph.content
        assert b".py" not in graph.content


def test_a_graph_that_computes_something_else_is_refused(text_graph: TracedGraph, checkpoint: Checkpoint) -> None:
    proto = onnx.load_from_string(text_graph.content)
    weight = next(w for w in proto.graph.initializer if np.prod(w.dims) >= 1024)
    wrong = numpy_helper.to_array(weight).copy()
    wrong.reshape(-1)[::7] += 0.5
    weight.CopyFrom(numpy_helper.from_array(wrong, weight.name))
    altered = replace(text_graph, content=proto.SerializeToString())
    inputs = {"random": random_text_inputs(checkpoint.tokenizer.vocabulary_size, 40)}
    with pytest.raises(ExportError, match="computes something else than the model"):
        check_graph("text_encoder", altered, inputs, "entity")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP, saved by transformers, with the whole CLIP vocabulary."""
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    torch.manual_seed(0)
    config = CLIPConfig(
        projection_dim=16,
        text_config={**TOWER, "max_position_embeddings": 24, "bos_token_id": 49406, "eos_token_id": 49407},
        vision_config={**TOWER, "image_size": 32, "patch_size": 16},
    )
    CLIPModel(config).eval().save_pretrained(folder)
    return folder


def test_a_clip_bundle_scores_as_clip_does(clip_folder: Path, tmp_path: Path) -> None:
    export_bundle(clip_checkpoint(str(clip_folder)), tmp_path / "bundle")
    hbi = HBI.load(tmp_path / "bundle", device="cpu")
    texts = ["a dog runs", "two people ride bicycles through a town & talk"]
    frames = np.random.default_rng(0).integers(0, 256, (2, 12, 32, 32, 3), dtype=np.uint8)
    mask = np.arange(12) < np.array([[12], [5]])
    actual = hbi.similarity(hbi.encode_text(texts), hbi.encode_video(frames, mask))

    clip = CLIPModel.from_pretrained(clip_folder).eval()
    pixels = torch.from_numpy(frames.reshape(-1, 32, 32, 3)).permute(0, 3, 1, 2) / 255.0
    pixels = (pixels - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)
    batch = hbi.tokenize(texts)
    with torch.no_grad():
        text = clip.get_text_features(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask).long()).pooler_output
        image = clip.get_image_features(pixels).pooler_output.reshape(2, 12, -1)
    image = torch.nn.functional.normalize(image, dim=-1)
    means = torch.stack([image[0].mean(0), image[1, :5].mean(0)])
    expected = torch.nn.functional.normalize(text, dim=-1) @ torch.nn.functional.normalize(means, dim=-1).T
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_clip_that_was_saved_in_half_precision_computes_in_float32(
    clip_folder: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    CLIPModel.from_pretrained(clip_folder).to(dtype).save_pretrained(tmp_path / "half")
    clip = load_clip(str(tmp_path / "half"))
    assert {parameter.dtype for parameter in clip.parameters()} == {torch.float32}


def test_what_is_no_whole_clip_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    """transformers draws what is missing at random: graph and model would agree on nonsense."""
    BertModel(BertConfig(vocab_size=50, **TOWER)).save_pretrained(tmp_path / "bert")
    clip = CLIPModel.from_pretrained(clip_folder)
    CLIPVisionModelWithProjection(clip.config.vision_config).save_pretrained(tmp_path / "vision")
    shutil.copytree(clip_folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    for name, message in (
        ("bert", "it is no CLIP"),
        ("vision", "it is no CLIP"),
        ("cut", "Error while deserializing header"),
    ):
        with pytest.raises(TrainingError, match=f"cannot load the CLIP model '.*{name}': {message}"):
            clip_checkpoint(str(tmp_path / name))


@pytest.mark.parametrize(("mean", "refused"), [(list(IMAGE_MEAN), False), ([0.5, 0.5, 0.5], True)])
def test_a_clip_of_pictures_that_are_normalised_otherwise_is_refused(
    clip_folder: Path, tmp_path: Path, mean: list[float], refused: bool
) -> None:
    shutil.copytree(clip_folder, tmp_path / "clip")
    said = {"image_mean": mean, "image_std": list(IMAGE_STD)}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(said))
    expected = pytest.raises(TrainingError, match=r"its pictures have mean \[0.5, 0.5, 0.5\]")
    with expected if refused else nullcontext():
        load_clip(str(tmp_path / "clip"))


def test_a_tokenizer_of_another_model_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = CLIPModel.from_pretrained(clip_folder).config
    small.text_config.vocab_size, small.text_config.bos_token_id, small.text_config.eos_token_id = 100, 98, 99
    CLIPModel(small).save_pretrained(tmp_path / "small")
    with pytest.raises(ExportError, match=r"makes 49408 tokens and its model knows 100"):
        clip_checkpoint(str(tmp_path / "small"))


def hbi_export(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from hbi_export.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_clip_command_makes_a_bundle_that_searches(clip_folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "red.mp4", "red")
    made = hbi_export("clip", clip_folder, "-o", tmp_path / "bundle", "--samples", videos, "--frames-per-second", "2")
    assert made.returncode == 0, made.stderr
    assert "smallest cosine" in made.stdout
    hbi = HBI.load(tmp_path / "bundle", device="cpu")
    assert hbi.bundle.manifest.name == "tiny-clip"
    assert hbi.bundle.manifest.sampling.frames_per_second == 2
    matches = hbi.index(videos, location=tmp_path / "index").search("anything")
    assert [Path(match.path).name for match in matches] == ["red.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "/nowhere", "-o", "b"], "/nowhere has no config.json"),
        (["clip", "/nowhere", "-o", "b"], "cannot load the CLIP model '/nowhere'"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str) -> None:
    result = hbi_export(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_a_folder_of_something_else_is_refused_before_anything_is_traced(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hbi_export.bundle.trace_graph", lambda *_, **__: pytest.fail("it was traced"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        export_bundle(checkpoint, tmp_path)


def test_the_clips_of_a_bundle_may_be_longer_than_those_of_the_training(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "model")
    made = hbi_export("onnx", tmp_path / "model", "-o", tmp_path / "bundle", "--clip-seconds", "10")
    assert made.returncode == 0, made.stderr
    sampling = Bundle.load(tmp_path / "bundle").manifest.sampling
    assert sampling == replace(checkpoint.model.config.sampling, clip_seconds=10)


@pytest.fixture(scope="module")
def whole(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """With every part that a model can have."""
    parts = {"answers": ANSWERS, "answer_widths": (16, 24), "reconstruction_layers": 1, "caption_layers": 1}
    checkpoint = with_parts(checkpoint, **parts)
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    return Exported(checkpoint, folder, export_bundle(checkpoint, folder))


@pytest.mark.parametrize("name", ["interaction", "similarity", "reranker", "answerer", "captioner_prefill"])
def test_padded_tokens_change_nothing_in_any_graph_of_tokens(whole: Exported, name: str) -> None:
    engine = open_engine(Bundle.load(whole.folder).graph_bytes(name), "cpu")
    assert isinstance(whole.checkpoint.model, training_model.HBI)
    drawn = random_token_inputs(whole.checkpoint.model.config)
    inputs = {spec.name: drawn[spec.name] for spec in engine.inputs}
    rng, padded, noisy = np.random.default_rng(3), 0, dict(inputs)
    for tokens_name in [part for part in inputs if part.endswith("_tokens")]:
        real = inputs[tokens_name.replace("_tokens", "_weights")][..., None] > 0
        noise = rng.normal(scale=5.0, size=inputs[tokens_name].shape).astype(np.float32)
        noisy[tokens_name] = np.where(real, inputs[tokens_name], noise)
        padded += int((~real).sum())
    assert padded > 0
    plain, changed = engine.run(inputs), engine.run(noisy)
    for output, expected in plain.items():
        # What the decoder may not look at is there, behind a mask.
        seen = plain["memory_mask"][:, None, None, :, None] if output in ("memory_keys", "memory_values") else True
        largest, difference = np.abs(expected).max(), np.where(seen, changed[output] - 1.0 * expected, 0.0)
        np.testing.assert_allclose(difference, 0.0, rtol=0, atol=1e-5 * largest, err_msg=output)


def test_every_graph_of_tokens_is_checked_on_real_ones_too(whole: Exported) -> None:
    checked = {(check.graph, check.inputs) for check in whole.checks}
    for name in ("interaction", "similarity", "reranker", "answerer", "captioner_prefill"):
        assert {(name, "random"), (name, "real")} <= checked


def test_the_baseline_is_exported_too(tmp_path: Path) -> None:
    export_bundle(tiny_checkpoint(MEAN_POOLED_SECTION), tmp_path / "bundle")
    levels = Bundle.load(tmp_path / "bundle").manifest.levels
    assert [(level.name, level.rate) for level in levels] == [("frame", 0.0), ("video", 1.0)]


def test_random_inputs_have_every_length(checkpoint: Checkpoint) -> None:
    video = random_video_inputs(checkpoint.model.config.sampling)
    assert video["frame_mask"].sum(1).tolist() == [1, 2, 4, 6]


def test_a_bundle_may_do_without_its_reranker(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint = with_parts(checkpoint, reconstruction_layers=1)
    export_bundle(checkpoint, tmp_path / "bundle", reranker=False)
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert "reranker" not in manifest.graphs
    assert "rerank" not in manifest.tasks


def test_a_bundle_that_reranks(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint = with_parts(checkpoint, reconstruction_layers=1)
    model = checkpoint.model
    assert isinstance(model, training_model.HBI)
    checks = export_bundle(checkpoint, tmp_path / "bundle")
    assert "reranker" in {check.graph for check in checks}
    hbi = HBI.load(tmp_path / "bundle", device="cpu", threads=1)
    assert "rerank" in hbi.bundle.manifest.tasks
    texts = ["a red circle moves left"]
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 32, 32, 3), dtype=np.uint8)
    mask = np.arange(6) < np.array([[6], [4], [1]])
    batch = checkpoint.tokenizer.encode(texts * 3, 40)
    with torch.no_grad():
        text = model.encode_text(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
        video = model.encode_video(torch.from_numpy(frames), torch.from_numpy(mask))
        expected = model.score(model.matched_similarity(*model.reconstruct(text, video)))[:, 0].numpy()
        plain = model.score(model.matched_similarity(text, video))[:, 0].numpy()
    actual = hbi.rerank(hbi.encode_text(texts), hbi.encode_video(frames, mask))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)
    assert np.abs(actual - plain).max() > 1e-3


def test_a_bundle_that_captions(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint = with_parts(checkpoint, caption_layers=2, reconstruction_layers=1)
    model = checkpoint.model
    assert isinstance(model, training_model.HBI)
    assert model.caption_decoder is not None
    checks = export_bundle(checkpoint, tmp_path / "bundle")
    assert {check.inputs for check in checks if check.graph == "captioner_step"} == {
        f"word {place}" for place in (1, 2, 19, 39)
    }
    hbi = HBI.load(tmp_path / "bundle", device="cpu", threads=1)
    assert "caption" in hbi.bundle.manifest.tasks
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 32, 32, 3), dtype=np.uint8)
    mask = np.arange(6) < np.array([[6], [4], [1]])
    with torch.no_grad():
        video = model.encode_video(torch.from_numpy(frames), torch.from_numpy(mask))
        memory = model.read(video)
    clips = hbi.encode_video(frames, mask)
    # Token by token, each side with its own cache, to the last position of the table.
    decoder = hbi._caption_decoder
    logits, state = decoder.begin(clips)
    ids, tokenizer = torch.full((3,), hbi.tokenizer.sot_id), hbi.tokenizer
    rng, cache = np.random.default_rng(2), None
    for place in range(40):
        with torch.no_grad():
            expected, cache = model.caption_decoder.step(ids, memory, cache)
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=ROUNDING)
        written = rng.integers(0, tokenizer.vocabulary_size, 3)
        ids = torch.from_numpy(written)
        if place < 39:
            logits, state = decoder.step(written, state)
    for options in (Decoding(beam_size=1), Decoding(beam_size=3), Decoding(max_tokens=5, beam_size=2)):
        eager = write_captions(model, video, options, start_id=tokenizer.sot_id, end_id=tokenizer.eot_id)
        served = hbi.write_captions(clips, options)
        assert [text.token_ids for text in served] == [text.token_ids for text in eager]
