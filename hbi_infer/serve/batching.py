"""Sentences of requests that come at the same time, encoded together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from hbi_infer.model.encoder import Encoder
from hbi_infer.model.tokenizer import TokenBatch
from hbi_infer.tasks.texts import EncodedTexts
from hbi_infer.tokens.levels import Levels, joined, some

WAIT_SECONDS = 0.005
"""Longest time that a sentence waits for others."""

MOST_TEXTS = 32
"""Number of sentences that go through the graph together."""


@dataclass(frozen=True)
class _Waiting:
    texts: tuple[str, ...]
    result: asyncio.Future[EncodedTexts]


class TextBatcher:
    """Encodes the sentences of one model. Use it within a running event loop, and `close` it there.

    Sentences share a run of the graph only where they have the same number of tokens: padding counts in the scores of
    some models.

    Args:
        encoder: The model.
        is_crowded: Tells whether other requests are on their way, so that waiting for them is worth it.
        on_batch: Told the number of sentences of each run of the graph.
    """

    def __init__(
        self,
        encoder: Encoder,
        is_crowded: Callable[[], bool],
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._encoder, self._is_crowded, self._on_batch = encoder, is_crowded, on_batch
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hbi-encode")
        self._task = asyncio.ensure_future(self._run())

    async def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Encodes the B sentences of a request; none may be empty.

        Raises:
            EngineError: The model failed.
        """
        waiting = _Waiting(tuple(texts), asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.result

    async def close(self) -> None:
        """Ends."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            try:
                results = await loop.run_in_executor(self._thread, self._encode, [each.texts for each in batch])
            except Exception as error:  # noqa: BLE001 - each request gets it
                for each in batch:
                    if not each.result.done():
                        each.result.set_exception(error)
                continue
            for each, result in zip(batch, results, strict=True):
                if not each.result.done():  # else its client is gone
                    each.result.set_result(result)

    async def _collect(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        if self._is_crowded() and self._queue.empty():
            with suppress(TimeoutError):
                batch.append(await asyncio.wait_for(self._queue.get(), WAIT_SECONDS))
        while not self._queue.empty() and sum(len(each.texts) for each in batch) < MOST_TEXTS:
            batch.append(self._queue.get_nowait())
        return [each for each in batch if not each.result.done()]

    def _encode(self, requests: list[tuple[str, ...]]) -> list[EncodedTexts]:
        """Encodes the sentences of several requests."""
        alone = [self._encoder.tokenize([text]) for texts in requests for text in texts]
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, batch in enumerate(alone):
            by_length[batch.ids.shape[1]].append(number)
        levels: dict[int, Levels] = {}
        for numbers in by_length.values():
            self._on_batch(len(numbers))
            made = self._encoder.encode_tokens(tokens_joined([alone[number] for number in numbers]))
            levels |= {number: some(made, slice(row, row + 1)) for row, number in enumerate(numbers)}
        results, start = [], 0
        for texts in requests:
            if len({alone[start + row].ids.shape[1] for row in range(len(texts))}) == 1:
                rows = range(start, start + len(texts))
                batch = tokens_joined([alone[row] for row in rows])
                results.append(EncodedTexts(texts, batch, joined([levels[row] for row in rows])))
            else:  # they have to be padded, as they are where they are encoded alone
                batch = self._encoder.tokenize(texts)
                results.append(EncodedTexts(texts, batch, self._encoder.encode_tokens(batch)))
            start += len(texts)
        return results


def tokens_joined(batches: Sequence[TokenBatch]) -> TokenBatch:
    """Joins the token ids (B, T) of texts with the same number of tokens into one batch."""
    import numpy as np

    return TokenBatch(
        np.concatenate([batch.ids for batch in batches]),
        np.concatenate([batch.mask for batch in batches]),
        tuple(cut for batch in batches for cut in batch.truncated),
    )
