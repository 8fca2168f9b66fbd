"""The caption decoder of a bundle: its state from token to token, and the state of some captions."""

from __future__ import annotations

import numpy as np
import pytest

from hbi_infer.model.bundle import Bundle
from hbi_infer.model.caption_decoder import CaptionDecoder
from hbi_infer.model.token_model import TokenModel, load_graph
from hbi_infer.tokens.levels import Levels
from tests.builders.tiny_bundle import COLOURS, FRAMES, SAMPLING, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", "caption"))


@pytest.fixture(scope="module")
def decoder(bundle: Bundle) -> CaptionDecoder:
    return CaptionDecoder(*(load_graph(bundle, f"captioner_{part}", "cpu", 1) for part in ("prefill", "step")))


@pytest.fixture(scope="module")
def clips(bundle: Bundle) -> Levels:
    """A clip of each colour."""
    shape = (3, FRAMES, SAMPLING.image_size, SAMPLING.image_size, 3)
    frames = np.broadcast_to(np.array(list(COLOURS.values()), np.uint8)[:, None, None, None], shape)
    return TokenModel(bundle, device="cpu", threads=1).encode_video(frames, np.ones(shape[:2], np.bool_))


def written(bundle: Bundle, decoder: CaptionDecoder, clips: Levels, rows: list[int]) -> list[list[int]]:
    """Three tokens of each of some captions, the likeliest each time."""
    logits, state = decoder.begin(clips)
    state, logits = decoder.select(state, np.array(rows)), logits[rows]
    texts = []
    for _ in range(3):
        tokens = logits.argmax(axis=1)
        texts.append(tokens)
        logits, state = decoder.step(tokens, state)
    return np.stack(texts, axis=1).tolist()


def test_each_caption_keeps_its_clip(bundle: Bundle, decoder: CaptionDecoder, clips: Levels) -> None:
    in_order = written(bundle, decoder, clips, [0, 1, 2])
    assert len({tuple(text) for text in in_order}) == 3
    assert written(bundle, decoder, clips, [2, 0, 0]) == [in_order[2], in_order[0], in_order[0]]


def test_the_memory_is_not_copied_where_the_clips_stay(decoder: CaptionDecoder, clips: Levels) -> None:
    _, state = decoder.begin(clips)
    same, other = decoder.select(state, np.arange(3)), decoder.select(state, np.array([1]))
    assert all(same.memory[name] is array for name, array in state.memory.items())
    assert all(len(array) == 1 for array in (*other.memory.values(), *other.cache.values()))
    assert other.clips.tolist() == [1]
