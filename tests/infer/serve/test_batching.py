"""Sentences that come together are encoded together, and each gets what it would get alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.api import HBI
from hbi_infer.errors import EngineError
from hbi_infer.model.tokenizer import TokenBatch
from hbi_infer.serve.batching import TextBatcher
from hbi_infer.tasks.texts import EncodedTexts, encode_texts

TEXTS = [("red",), ("a blue video",), ("green",), ("red", "a blue video"), ("blue", "red")]


@pytest.fixture(scope="module")
def model(library: Path) -> HBI:
    return HBI.load(library / "bundle", device="cpu", threads=1)


async def encode_all(model: HBI, sizes: list[int]) -> list[EncodedTexts]:
    batcher = TextBatcher(model, lambda: True, sizes.append)
    try:
        return await asyncio.gather(*map(batcher.encode, TEXTS))
    finally:
        await batcher.close()


def test_each_gets_what_it_would_get_alone(model: HBI) -> None:
    sizes: list[int] = []
    for texts, made in zip(TEXTS, asyncio.run(encode_all(model, sizes)), strict=True):
        expected = encode_texts(model, texts, "query")
        assert (made.texts, made.cut_at_words) == (expected.texts, expected.cut_at_words)
        np.testing.assert_array_equal(made.batch.ids, expected.batch.ids)
        for name, level in expected.levels.items():
            np.testing.assert_allclose(made.levels[name].tokens, level.tokens, atol=1e-6)
            np.testing.assert_allclose(made.levels[name].weights, level.weights, atol=1e-6)
    assert sum(sizes) == 7
    assert max(sizes) >= 4, "those of one length share a run"


def test_an_error_reaches_every_request_and_the_next_one_is_served(model: HBI, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: HBI, batch: TokenBatch) -> None:
        raise EngineError("the graph failed")

    async def run() -> list[object]:
        batcher = TextBatcher(model, lambda: True)
        with monkeypatch.context() as patch:
            patch.setattr(HBI, "encode_tokens", fail)
            results = await asyncio.gather(*map(batcher.encode, TEXTS), return_exceptions=True)
        results.append(await batcher.encode(("red",)))
        await batcher.close()
        return list(results)

    *failed, served = asyncio.run(run())
    assert all(isinstance(result, EngineError) for result in failed)
    assert isinstance(served, EncodedTexts)
