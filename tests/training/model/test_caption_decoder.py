"""The caption decoder: one token at a time is what all at once gives; padding and later words count nothing."""

from __future__ import annotations

import pytest
import torch

from hbi_training.model.caption_decoder import CaptionDecoder
from hbi_training.model.config import LEVELS
from hbi_training.model.token_interaction import Tokens

ROUNDING = 1e-5

SIZES = {"entity": 6, "action": 2, "event": 1}


@pytest.fixture(scope="module")
def decoder() -> CaptionDecoder:
    torch.manual_seed(0)
    return CaptionDecoder(width=16, vocabulary_size=30, layers=2, heads=2, max_tokens=10).eval()


def video(batch: int, frames: int = 6) -> dict[str, Tokens]:
    torch.manual_seed(1)
    levels = {}
    for level in LEVELS:
        mask = torch.arange(SIZES[level]).expand(batch, -1) < frames
        levels[level] = Tokens(torch.randn(batch, SIZES[level], 16), mask / mask.sum(-1, keepdim=True), mask)
    return levels


def test_steps_with_the_cache_are_the_whole(decoder: CaptionDecoder) -> None:
    ids = torch.randint(0, 30, (3, 10))
    memory = decoder.read(video(3))
    whole = decoder(ids, memory)
    assert whole.shape == (3, 10, 30)
    cache = None
    for place in range(10):
        logits, cache = decoder.step(ids[:, place], memory, cache)
        torch.testing.assert_close(logits, whole[:, place], rtol=0, atol=ROUNDING)
    assert cache is not None
    assert cache.keys.shape == (3, 2, 2, 10, 8)


def test_later_words_and_padded_frames_count_nothing(decoder: CaptionDecoder) -> None:
    ids = torch.randint(0, 30, (2, 8))
    clip = video(2, frames=4)
    logits = decoder(ids, decoder.read(clip))
    other = ids.clone()
    other[:, 5:] = 0
    torch.testing.assert_close(decoder(other, decoder.read(clip))[:, :5], logits[:, :5], rtol=0, atol=ROUNDING)
    noisy = {k: v._replace(tokens=torch.where(v.mask[..., None], v.tokens, 50.0)) for k, v in clip.items()}
    torch.testing.assert_close(decoder(ids, decoder.read(noisy)), logits, rtol=0, atol=ROUNDING)


def test_it_can_learn_to_say_what_it_sees() -> None:
    torch.manual_seed(0)
    decoder = CaptionDecoder(width=16, vocabulary_size=12, layers=1, heads=2, max_tokens=6, dropout=0.0)
    clip, captions = video(4), torch.randint(2, 12, (4, 6))
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(80):
        logits = decoder(captions[:, :-1], decoder.read(clip))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), captions[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.equal(logits.argmax(-1), captions[:, 1:])
