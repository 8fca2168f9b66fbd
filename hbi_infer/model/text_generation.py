"""Writing texts token by token: greedy, beam and nucleus decoding for any decoder that keeps a cache.

A decoder gives the logits of the next token for N rows at once and carries a state (its key-value cache) from token to
token. This file knows nothing else of it, so that it serves the PyTorch module in training and the ONNX graphs alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from hbi_infer.options import Decoding

State = TypeVar("State")
Floats = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]


class Decoder(Protocol[State]):
    """A model that writes the next token. Rows are texts being written."""

    def step(self, token_ids: Ids, state: State) -> tuple[Floats, State]:
        """Computes logits (N, A) of the next token from the last token (N,) of each row, and the state behind it."""

    def select(self, state: State, rows: Ids) -> State:
        """Returns the state of the rows (N,) in any order and number."""


@dataclass(frozen=True)
class Generated:
    """One text.

    Attributes:
        token_ids: Token ids without start and end.
        log_probability: Natural logarithm of the probability of all tokens, the end included if it was reached.
        is_complete: Whether the end was reached before the limit.
    """

    token_ids: tuple[int, ...]
    log_probability: float
    is_complete: bool


def generate(
    decoder: Decoder[State],
    logits: Floats,
    state: State,
    options: Decoding,
    *,
    end_id: int,
    forbidden: Sequence[int] = (),
) -> list[Generated]:
    """Writes a text for each of N rows.

    Args:
        decoder: Model that gives the next logits.
        logits: (N, A) logits of the first token.
        state: State behind the start token.
        options: How to choose tokens.
        end_id: The token that ends a text.
        forbidden: Tokens that are never written, such as the start.
    """
    if options.beam_size > 1:
        return _Beams[State](options, end_id, forbidden).run(decoder, logits, state)
    return _Singles[State](options, end_id, forbidden).run(decoder, logits, state)


@dataclass
class _Writer(Generic[State]):
    options: Decoding
    end_id: int
    forbidden: Sequence[int]

    def allowed(self, logits: Floats, written: Sequence[Sequence[int]]) -> Floats:
        """Returns the logits (N, A), at least float32, with -inf at tokens that may not follow."""
        scores = np.array(logits, np.promote_types(logits.dtype, np.float32))
        scores[:, list(self.forbidden)] = -np.inf
        size = self.options.no_repeat_ngram
        for row, tokens in enumerate(written if size else ()):
            scores[row, sorted(_would_repeat(tokens, size))] = -np.inf
        return scores


def _log_sum_exp(scores: Floats) -> npt.NDArray[np.float64]:
    """Computes (N, 1) from (N, A): exponentials in the type of the scores, added in float64."""
    largest = scores.max(axis=1, keepdims=True)
    shares = scores - largest
    np.exp(shares, out=shares)
    total: npt.NDArray[np.float64] = largest + np.log(shares.sum(axis=1, keepdims=True, dtype=np.float64))
    return total


def _likeliest(scores: Floats, count: int) -> tuple[Ids, npt.NDArray[np.float64]]:
    """Returns tokens (N, K) of the largest scores in each row, best first, and their log-probabilities (N, K).

    Of equal ones the first token wins. Only these are sorted and made float64: a vocabulary may have 50,000 tokens.
    """
    count = min(count, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    rows, tokens = np.nonzero(scores >= least)
    values = scores[rows, tokens].astype(np.float64)
    order = np.lexsort((tokens, -values, rows))
    # A row with equal scores at the limit has more than enough.
    starts = np.searchsorted(rows, np.arange(len(scores)))
    kept = order[starts[:, None] + np.arange(count)]
    return tokens[kept], values[kept] - _log_sum_exp(scores)


def _would_repeat(tokens: Sequence[int], size: int) -> set[int]:
    """Returns the tokens that would make a run of `size` tokens occur a second time."""
    if len(tokens) < size:
        return set()
    tail = tuple(tokens[len(tokens) - size + 1 :])
    return {tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tuple(tokens[i : i + size - 1]) == tail}


class _Singles(_Writer[State]):
    """Writes one text for each row: the likeliest token each time, or one drawn from the nucleus."""

    def run(self, decoder: Decoder[State], logits: Floats, state: State) -> list[Generated]:
        rng = np.random.default_rng(self.options.seed)
        written: list[list[int]] = [[] for _ in range(len(logits))]
        sums, complete = np.zeros(len(logits)), np.zeros(len(logits), np.bool_)
        rows = np.arange(len(logits))  # those that are not complete
        for place in range(1, self.options.max_tokens + 1):
            scores = self.allowed(logits, [written[row] for row in rows])
            chosen = self._choose(scores, rng)
            sums[rows] += scores[np.arange(len(rows)), chosen] - _log_sum_exp(scores)[:, 0]
            ended = chosen == self.end_id
            complete[rows[ended]] = True
            for row, token in zip(rows[~ended], chosen[~ended], strict=True):
                written[row].append(int(token))
            if ended.all() or place == self.options.max_tokens:
                break
            if ended.any():
                state = decoder.select(state, np.flatnonzero(~ended))
            rows = rows[~ended]
            logits, state = decoder.step(chosen[~ended], state)
        return [
            Generated(tuple(tokens), float(total), bool(done))
            for tokens, total, done in zip(written, sums, complete, strict=True)
        ]

    def _choose(self, scores: Floats, rng: np.random.Generator) -> Ids:
        if self.options.nucleus is None:
            likeliest: Ids = scores.argmax(axis=1)
            return likeliest
        tempered = scores.astype(np.float64) / self.options.temperature
        probabilities = np.exp(tempered - _log_sum_exp(tempered))
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ranked = np.take_along_axis(probabilities, order, axis=1)
        # The fewest tokens that together reach the nucleus; always at least the first.
        before = np.cumsum(ranked, axis=1) - ranked
        ranked = np.where(before < self.options.nucleus, ranked, 0)
        drawn = rng.random((len(ranked), 1)) * ranked.sum(axis=1, keepdims=True)
        place = (np.cumsum(ranked, axis=1) < drawn).sum(axis=1, keepdims=True)
        chosen: Ids = np.take_along_axis(order, place, axis=1)[:, 0]
        return chosen


_Way = tuple[float, int, int]
"""The log-probability of a text with one token more, the candidate that it continues, and that token."""


@dataclass
class _Candidates:
    """The texts of one row: those being written, best first, and those that are complete."""

    sums: list[float] = field(default_factory=lambda: [0.0])
    written: list[list[int]] = field(default_factory=lambda: [[]])
    complete: list[tuple[float, Generated]] = field(default_factory=list)


class _Beams(_Writer[State]):
    """Writes the likeliest text of each row that a search with a few candidates finds."""

    def run(self, decoder: Decoder[State], logits: Floats, state: State) -> list[Generated]:
        rows = [_Candidates() for _ in range(len(logits))]
        active = list(range(len(rows)))
        for place in range(1, self.options.max_tokens + 1):
            parents: list[int] = []
            tokens: list[int] = []
            still: list[int] = []
            offset = 0
            for number, ways in zip(active, self._ways_on([rows[number] for number in active], logits), strict=True):
                row = rows[number]
                size = len(row.written)
                kept = self._advance(row, ways)
                if row.written and not self._is_settled(row):
                    still.append(number)
                    parents += [offset + parent for parent in kept]
                    tokens += [text[-1] for text in row.written]
                offset += size
            active = still
            if not active or place == self.options.max_tokens:
                break
            logits, state = decoder.step(np.array(tokens), decoder.select(state, np.array(parents)))
        return [self._best(row) for row in rows]

    def _ways_on(self, rows: Sequence[_Candidates], logits: Floats) -> list[Iterable[_Way]]:
        """Returns the best continuations of each row, best first; of equal ones that of the first candidate and token.

        There are twice as many as candidates, so that enough go on even if half of them end. All rows are handled
        together, for little may be done for each one by itself.

        Args:
            rows: R rows with C or fewer candidates each.
            logits: (N, A) logits of all candidates of all rows, in order.
        """
        count = 2 * self.options.beam_size
        # (N, K)
        tokens, gains = _likeliest(self.allowed(logits, [text for row in rows for text in row.written]), count)
        sizes = [len(row.written) for row in rows]
        of_row = np.repeat(np.arange(len(rows)), sizes), np.concatenate([np.arange(size) for size in sizes])
        shape = len(rows), max(sizes), tokens.shape[1]
        totals, followers = np.full(shape, -np.inf), np.zeros(shape, np.int64)
        totals[of_row] = gains + np.array([total for row in rows for total in row.sums])[:, None]
        followers[of_row] = tokens
        # (R, C, K) -> (R, C K)
        flat = [table.reshape(len(rows), -1) for table in (totals, followers)]
        best = np.argsort(-flat[0], axis=1, kind="stable")[:, :count]
        scores, chosen = (np.take_along_axis(table, best, axis=1).tolist() for table in flat)
        parents = (best // tokens.shape[1]).tolist()
        return [zip(*ways, strict=True) for ways in zip(scores, parents, chosen, strict=True)]

    def _advance(self, row: _Candidates, ways: Iterable[_Way]) -> list[int]:
        """Adds a token to the candidates of a row; returns the candidate that each of the new ones continues."""
        size = self.options.beam_size
        parents: list[int] = []
        written: list[list[int]] = []
        sums: list[float] = []
        for score, parent, token in ways:
            if score == -np.inf:
                continue
            if token == self.end_id:
                done = Generated(tuple(row.written[parent]), score, is_complete=True)
                row.complete.append((self._rated(done), done))
            elif len(written) < size:
                parents.append(parent)
                written.append([*row.written[parent], token])
                sums.append(score)
        row.written, row.sums = written, sums
        row.complete = sorted(row.complete, key=lambda pair: -pair[0])[:size]
        return parents

    def _rated(self, text: Generated) -> float:
        """Returns the log-probability divided by (length + 1) ^ penalty: a larger penalty favours longer texts."""
        return text.log_probability / float((len(text.token_ids) + 1) ** self.options.length_penalty)

    def _is_settled(self, row: _Candidates) -> bool:
        """Returns whether as many texts are complete as there are candidates, and no candidate can become better."""
        if len(row.complete) < self.options.beam_size:
            return False
        longest = self.options.max_tokens if self.options.length_penalty > 0 else len(row.written[0]) + 1
        return row.sums[0] / float(longest**self.options.length_penalty) <= row.complete[-1][0]

    def _best(self, row: _Candidates) -> Generated:
        if row.complete:
            return row.complete[0][1]
        return Generated(tuple(row.written[0]), row.sums[0], is_complete=False)
