"""Exported graphs against the models that they were traced from, and bundles that run."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, CLIPModel, CLIPVisionModelWithProjection

from hbi_export.bundle import export_bundle
from hbi_infer import HBI
from hbi_infer.errors import BundleError, InputError, TrainingError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.graph_names import TASKS, exported_graphs
from hbi_infer.options import Decoding
from hbi_infer.tokens.banzhaf import banzhaf_interaction
from hbi_infer.tokens.levels import unit
from hbi_training.evaluation.caption_writing import write_captions
from hbi_training.model import hbi as training_model
from hbi_training.model.clip_encoders import load_clip
from hbi_training.model.clip_preprocessing import IMAGE_MEAN, IMAGE_STD
from hbi_training.weights.checkpoint import Checkpoint
from tests.builders.exports import (
    ANSWERS,
    Exported,
    tiny_checkpoint,
    two_clips,
)
from tests.builders.tiny_training import CLIP, MEAN_POOLED_SECTION, SAMPLING, TOWER

ROUNDING = 1e-4


def test_a_bundle_scores_as_the_model_does(whole: Exported) -> None:
    checkpoint, folder, checks = whole
    words = {check.inputs for check in checks if check.graph == "captioner_step"}
    assert {check.inputs for check in checks} - words == {"random", "drawn", "caption", "real"}
    assert all(check.cosine > 0.99 for check in checks)
    hbi = HBI.load(folder, device="cpu")
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


def test_a_bundle_that_answers_and_explains(whole: Exported) -> None:
    checkpoint, folder, checks = whole
    assert {check.graph for check in checks} == set(exported_graphs())
    on_tokens = ("interaction", "similarity", "answerer")
    assert all(not check.items_beyond for check in checks if check.graph in on_tokens)
    hbi = HBI.load(folder, device="cpu")
    scored = [hbi.encode_text(["a red circle", "two rings move left", "a"]), hbi.encode_video(*two_clips())]
    by_numpy = hbi.similarity(*scored)
    hbi._on_gpu = True  # what a GPU would run
    np.testing.assert_allclose(hbi.similarity(*scored), by_numpy, atol=ROUNDING)
    backwards = hbi.similarity(*reversed(scored))  # clips in the place of texts have other numbers of tokens
    np.testing.assert_allclose(backwards, by_numpy.T, atol=ROUNDING)
    assert (hbi.bundle.manifest.tasks, hbi.bundle.manifest.answers) == (TASKS, ANSWERS)

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


def test_a_bundle_says_how_its_weights_are_stored(tmp_path: Path) -> None:
    export_bundle(tiny_checkpoint(MEAN_POOLED_SECTION), tmp_path / "bundle", weights="int8")
    assert Bundle.load(tmp_path / "bundle").manifest.graphs["frame_encoder"].precision == "int8 weights"


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
            load_clip(str(tmp_path / name))


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


def test_a_folder_of_something_else_is_refused_before_anything_is_traced(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hbi_export.bundle.trace_graph", lambda *_, **__: pytest.fail("it was traced"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        export_bundle(checkpoint, tmp_path)


def test_the_baseline_is_exported_too(tmp_path: Path) -> None:
    export_bundle(tiny_checkpoint(MEAN_POOLED_SECTION), tmp_path / "bundle")
    levels = Bundle.load(tmp_path / "bundle").manifest.levels
    assert [(level.name, level.rate) for level in levels] == [("frame", 0.0), ("video", 1.0)]


def test_a_bundle_that_reranks(whole: Exported) -> None:
    checkpoint = whole.checkpoint
    model = checkpoint.model
    assert isinstance(model, training_model.HBI)
    hbi = HBI.load(whole.folder, device="cpu", threads=1)
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


def test_a_bundle_that_captions(whole: Exported) -> None:
    model, checks = whole.checkpoint.model, whole.checks
    assert isinstance(model, training_model.HBI)
    assert model.caption_decoder is not None
    assert {check.inputs for check in checks if check.graph == "captioner_step"} == {
        f"word {place}" for place in (1, 2, 19, 39)
    }
    hbi = HBI.load(whole.folder, device="cpu", threads=1)
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


def test_patches_are_merged_on_request(tmp_path: Path) -> None:
    deep = {**CLIP, "vision_config": {**CLIP["vision_config"], "num_hidden_layers": 3, "image_size": 64}}
    checkpoint = tiny_checkpoint({**MEAN_POOLED_SECTION, "clip": deep, "sampling": {**SAMPLING, "image_size": 64}})
    checks = export_bundle(checkpoint, tmp_path / "merged", merge_tokens=4)
    assert not any(check.items_beyond for check in checks), "the graph merges as the model does"
    assert checkpoint.model.frame_encoder.merged == 0
    provenance = Bundle.load(tmp_path / "merged").manifest.provenance
    assert (provenance.merged_tokens, provenance.metrics) == (4, {})
    export_bundle(checkpoint, tmp_path / "whole")
    frames = np.random.default_rng(0).integers(0, 256, (1, 6, 64, 64, 3), dtype=np.uint8)
    merged, whole = (
        HBI.load(tmp_path / name, device="cpu").encode_video(frames, np.ones((1, 6), bool))["frame"].tokens[0]
        for name in ("merged", "whole")
    )
    cosines = (unit(merged) * unit(whole)).sum(-1)
    assert 0.5 < cosines.min() < 0.99999
