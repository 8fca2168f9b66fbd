from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hbi_engines.onnx_runtime import cuda_problem
from hbi_infer import HBI
from hbi_infer.errors import BundleError, DeviceError, EngineError
from hbi_infer.model.bundle import write_bundle
from tests.builders.tiny_bundle import (
    COLOURS,
    FRAMES,
    MAX_WORDS,
    SAMPLING,
    tiny_graphs,
    tiny_manifest,
    tokenizer_json,
    write_tiny_bundle,
)


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def hbi(bundle_path: Path) -> HBI:
    return HBI.load(bundle_path, device="cpu", threads=1)


def clips(*colours: str, num_frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """Frames (B, F, H, W, 3) and mask (B, F) of clips of one colour each, the last slots empty."""
    frames = np.zeros((len(colours), FRAMES, SAMPLING.image_size, SAMPLING.image_size, 3), np.uint8)
    mask = np.zeros((len(colours), FRAMES), np.bool_)
    mask[:, :num_frames] = True
    for clip, colour in zip(frames, colours, strict=True):
        clip[:num_frames] = COLOURS[colour]
    return frames, mask


def test_texts_find_their_colour(hbi: HBI) -> None:
    video = hbi.encode_video(*clips("green", "blue", "red"))
    text = hbi.encode_text(["a red video", "green", "blue then blue"])
    scores = hbi.similarity(text, video)
    assert scores.dtype == np.float32
    assert scores.argmax(axis=1).tolist() == [2, 0, 1]
    # The rates sum to 1.5. A wrong colour has -1/2, but half of the entity level is 0: the words without a colour.
    np.testing.assert_allclose(scores[1], [1.5, -0.5, -0.5], atol=1e-3)


def test_levels_are_those_of_the_bundle(hbi: HBI) -> None:
    video = hbi.encode_video(*clips("green", "blue", num_frames=3))
    shapes = {name: level.tokens.shape for name, level in video.items()}
    assert shapes == {"entity": (2, 4, 3), "event": (2, 1, 3)}
    np.testing.assert_allclose(video["entity"].weights, [[1 / 3, 1 / 3, 1 / 3, 0]] * 2, rtol=1e-6)
    text = hbi.encode_text(["red", "a red video"])
    assert text["entity"].tokens.shape == (2, 5, 3)
    assert (text["entity"].weights[0] > 0).tolist() == [True, True, True, False, False]
    assert text["event"].slots is not None
    assert text["event"].slots.tolist() == [[0, 0, 0, -1, -1], [0, 0, 0, 0, 0]]
    assert text["entity"].slots is None


def test_padding_changes_no_score(hbi: HBI) -> None:
    alone = hbi.encode_text(["red"])
    beside_a_long_text = hbi.encode_text(["red", "blue then green video"])
    for num_frames in (1, FRAMES):
        video = hbi.encode_video(*clips("green", "red", num_frames=num_frames))
        score = hbi.similarity(alone, video)
        np.testing.assert_allclose(hbi.similarity(beside_a_long_text, video)[:1], score, rtol=1e-6)
        np.testing.assert_allclose(score, hbi.similarity(alone, hbi.encode_video(*clips("green", "red"))), rtol=1e-6)


def test_tokenize_says_where_a_long_text_was_cut(hbi: HBI) -> None:
    batch = hbi.tokenize(["red", "a red video then a blue video then green"])
    assert batch.ids.shape == batch.mask.shape == (2, MAX_WORDS)
    assert batch.truncated[0] is None
    assert batch.truncated[1] is not None
    assert (batch.truncated[1].word, batch.truncated[1].word_number) == ("video", 7)


def test_wrong_frames_are_refused_before_the_graph_runs(hbi: HBI) -> None:
    frames, mask = clips("red")
    with pytest.raises(EngineError, match=r"frames is float32; the graph takes frames \(B, 4, 16, 16, 3\) uint8"):
        hbi.encode_video(frames.astype(np.float32), mask)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="axis 2 of frames has size 8"):
        hbi.encode_video(frames[:, :, :8], mask)


def test_only_the_graph_that_is_used_is_read(bundle_path: Path, tmp_path: Path) -> None:
    """Searching works although the video encoder is damaged; using that one is refused."""
    path = write_tiny_bundle(tmp_path / "damaged")
    (path / "video_encoder.onnx").write_bytes(b"damaged")
    hbi = HBI.load(path)
    assert hbi.encode_text(["red"])["event"].tokens.shape == (1, 1, 3)
    with pytest.raises(BundleError, match=r"video_encoder\.onnx was altered or damaged"):
        hbi.encode_video(*clips("red"))


def test_a_graph_without_the_levels_of_the_manifest_is_refused(tmp_path: Path) -> None:
    manifest = tiny_manifest()
    levels = (*manifest.levels, dataclasses.replace(manifest.levels[0], name="action"))
    write_bundle(tmp_path / "b", dataclasses.replace(manifest, levels=levels), tiny_graphs(), tokenizer_json())
    with pytest.raises(BundleError, match=r"text_encoder of .* has no action_tokens, action_weights: export it again"):
        HBI.load(tmp_path / "b").encode_text(["red"])


def test_interactions_without_a_graph_for_them(hbi: HBI) -> None:
    """A bundle of before has none: NumPy computes them."""
    video = hbi.encode_video(*clips("green", "red", num_frames=3))
    found = hbi.interaction(hbi.encode_text(["a red video"]), video)
    assert {name: part.shape for name, part in found.items()} == {"entity": (2, 5, 4), "event": (2, 1, 1)}
    assert found["entity"].dtype == np.float32
    assert found["entity"][1, 2, 0] > 0.05
    np.testing.assert_allclose(found["entity"][1, 2, :3], found["entity"][1, 2, 0], rtol=1e-6)  # equal frames
    assert not found["entity"][:, :, 3].any(), "padding"
    np.testing.assert_allclose(found["event"][:, 0, 0], [0, 1], atol=1e-3)


def test_a_bundle_without_answers_says_so(hbi: HBI) -> None:
    with pytest.raises(BundleError, match=r"has no graph answerer; .* use a bundle that was exported for the task"):
        hbi.answer_logits(hbi.encode_text(["red"]), hbi.encode_video(*clips("red")))


def test_devices(bundle_path: Path) -> None:
    with pytest.raises(DeviceError, match="there is no device 'tpu'; choose one of: auto, cpu, cuda"):
        HBI.load(bundle_path, device="tpu")
    assert HBI.load(bundle_path, device="cpu", threads=1).device_reason == "cpu (1 thread), as asked"
    problem = cuda_problem()
    assert problem in HBI.load(bundle_path).device_reason
    if problem:
        with pytest.raises(DeviceError, match="device cuda cannot run here: "):
            HBI.load(bundle_path, device="cuda")


def test_a_missing_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle at"):
        HBI.load(tmp_path / "none")


def test_a_bundle_may_limit_how_many_clips_are_encoded_at_a_time(tmp_path: Path) -> None:
    manifest = dataclasses.replace(tiny_manifest(), batch_clips=2)
    write_bundle(tmp_path / "tiny", manifest, tiny_graphs(), tokenizer_json())
    limited = HBI.load(tmp_path / "tiny", device="cpu", threads=1)
    whole = HBI.load(write_tiny_bundle(tmp_path / "whole"), device="cpu", threads=1)
    sizes = []
    encoder = limited._video_encoder
    run = encoder.run
    encoder.run = lambda frames, mask: (sizes.append(len(frames)), run(frames, mask))[1]  # type: ignore[method-assign]
    frames, mask = clips("green", "blue", "red", "green", "blue")
    made, expected = limited.encode_video(frames, mask), whole.encode_video(frames, mask)
    assert sizes == [2, 2, 1]
    for name, level in expected.items():
        np.testing.assert_array_equal(made[name].tokens, level.tokens)
        np.testing.assert_array_equal(made[name].weights, level.weights)
