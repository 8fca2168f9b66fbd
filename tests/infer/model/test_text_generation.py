"""Decoding against an exhaustive search, on a decoder whose every next token depends on all that was written."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.errors import InputError
from hbi_infer.model.text_generation import Generated, generate
from hbi_infer.options import Decoding

NUM_TOKENS, START, END = 5, 0, 1
Prefixes = list[tuple[int, ...]]


class Prefix:
    """A decoder whose state is what was written; its logits are a random function of that."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.steps = 0

    def logits(self, prefix: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return 2 * np.random.default_rng([self.seed, *prefix]).standard_normal(NUM_TOKENS)

    def start(self, rows: int) -> tuple[npt.NDArray[np.float64], Prefixes]:
        prefixes: Prefixes = [(row,) for row in range(rows)]  # each row is another text
        return np.stack([self.logits(prefix) for prefix in prefixes]), prefixes

    def step(self, token_ids: npt.NDArray[np.int64], state: Prefixes) -> tuple[npt.NDArray[np.float64], Prefixes]:
        self.steps += 1
        prefixes = [(*prefix, int(token)) for prefix, token in zip(state, token_ids, strict=True)]
        return np.stack([self.logits(prefix) for prefix in prefixes]), prefixes

    def select(self, state: Prefixes, rows: npt.NDArray[np.int64]) -> Prefixes:
        return [state[row] for row in rows]

    def log_probabilities(self, prefix: tuple[int, ...]) -> npt.NDArray[np.float64]:
        logits = self.logits(prefix)
        logits[START] = -np.inf
        normalised: npt.NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
        return normalised


def write(decoder: Prefix, rows: int, **options: Any) -> list[Generated]:
    return generate(decoder, *decoder.start(rows), Decoding(**options), end_id=END, forbidden=[START])


def log_probability(decoder: Prefix, row: int, tokens: tuple[int, ...]) -> float:
    """Of the tokens with an end behind them."""
    path = (row, *tokens, END)
    return sum(float(decoder.log_probabilities(path[:i])[path[i]]) for i in range(1, len(path)))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), penalty=st.sampled_from([0.0, 0.7, 1.0]))
def test_a_wide_beam_finds_the_best_text_there_is(seed: int, penalty: float) -> None:
    decoder = Prefix(seed)
    found = write(decoder, 2, max_tokens=5, beam_size=120, length_penalty=penalty)
    for row, text in enumerate(found):
        every = [t for length in range(5) for t in product(range(2, NUM_TOKENS), repeat=length)]
        rated = {t: log_probability(decoder, row, t) / (len(t) + 1) ** penalty for t in every}
        best = max(rated, key=lambda t: rated[t])
        assert text.is_complete
        assert text.token_ids == best
        assert text.log_probability == pytest.approx(log_probability(decoder, row, best))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 4))
def test_a_row_is_written_as_if_it_were_alone(seed: int, rows: int) -> None:
    for options in ({"beam_size": 1}, {"beam_size": 3}, {"beam_size": 3, "no_repeat_ngram": 2}):
        together = write(Prefix(seed), rows, max_tokens=6, **options)
        for row in range(rows):
            decoder = Prefix(seed)
            logits, state = decoder.start(rows)
            one = [np.array([row])]
            alone = generate(
                decoder,
                logits[one[0]],
                decoder.select(state, one[0]),
                Decoding(max_tokens=6, **options),
                end_id=END,
                forbidden=[START],
            )
            assert alone[0] == together[row]


def test_greedy_takes_the_likeliest_token() -> None:
    decoder = Prefix(3)
    for row, text in enumerate(write(decoder, 3, max_tokens=6, beam_size=1)):
        prefix: tuple[int, ...] = (row,)
        for token in (*text.token_ids, *([END] if text.is_complete else [])):
            assert token == decoder.log_probabilities(prefix).argmax()
            prefix = (*prefix, token)
        assert START not in text.token_ids
    assert decoder.steps <= 6


def test_a_limit_ends_a_text() -> None:
    texts = write(Prefix(1), 4, max_tokens=1, beam_size=1) + write(Prefix(1), 4, max_tokens=1, beam_size=2)
    assert all(len(text.token_ids) <= 1 for text in texts)
    assert not all(text.is_complete for text in texts)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_nothing_is_said_twice(beam_size: int) -> None:
    for seed in range(20):
        for text in write(Prefix(seed), 2, max_tokens=12, beam_size=beam_size, no_repeat_ngram=2):
            runs = list(pairwise(text.token_ids))
            assert len(runs) == len(set(runs))


def test_the_nucleus_is_drawn_from_by_probability() -> None:
    decoder = Prefix(5)
    logits, state = decoder.start(1)
    many = 4000
    rows = np.zeros(many, np.int64)
    options = Decoding(max_tokens=1, beam_size=1, nucleus=0.8, seed=2)
    texts = generate(decoder, logits[rows], decoder.select(state, rows), options, end_id=END, forbidden=[START])
    first = np.array([text.token_ids[0] if text.token_ids else END for text in texts])
    probabilities = np.exp(decoder.log_probabilities((0,)))
    order = np.argsort(-probabilities)
    inside = order[: int(np.searchsorted(np.cumsum(probabilities[order]), 0.8)) + 1]
    assert set(first) == set(inside)
    expected = probabilities[inside] / probabilities[inside].sum()
    np.testing.assert_allclose([np.mean(first == token) for token in inside], expected, atol=0.04)
    again = generate(decoder, logits[rows], decoder.select(state, rows), options, end_id=END, forbidden=[START])
    assert again == texts
    narrow = write(decoder, 3, max_tokens=6, beam_size=1, nucleus=1e-9)
    assert narrow == write(decoder, 3, max_tokens=6, beam_size=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"beam_size": 0}, "beam_size is 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"length_penalty": -0.5}, "length_penalty is -0.5"),
        ({"nucleus": 1.5, "beam_size": 1}, "nucleus is 1.5"),
        ({"nucleus": 0.5, "beam_size": 2}, "drawing from a nucleus needs a beam_size of 1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Decoding(**options)
