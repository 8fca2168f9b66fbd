"""METEOR 1.5 (Denkowski and Lavie, 2014) without its tables of data: words match exactly or by their stems.

Its English parameters, its alignment and its sums over a corpus are all here. Its tables of synonyms and paraphrases
(WordNet and 60 MB of phrase pairs) are missing, so scores are 2 to 5 points of 100 below the official ones. Function
words count a third of others; the list of them is our own.

No library will do. NLTK's METEOR is that of 2007: other parameters, no function words, matches taken from the back
instead of in the fewest chunks, and a mean instead of sums. Where the official scorer gives 38 (the golden captions) it
gives 64, and with the parameters of 1.5 a caption that equals its reference gets not 100 but about 60.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import snowballstemmer

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STEM_MATCH = 0.6  # relative to an exact match
BEAM = 40

_FUNCTION_WORDS = (
    "a about after all am an and are as at be been being but by can could did do does for from had has have he her him "
    "his i if in into is it its me my n't not of off on one or our out over she should so some than that the their "
    "them then there these they this those to two up us was we were what when where which while who will with would "
    "you your 's 're 've 'll 'd 'm"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())

Pair = tuple[int, int]
Way = tuple[tuple[int, int, int], tuple[Pair, ...]]  # cost (unmatched words, chunks, places moved) and pairs

STEMMER = snowballstemmer.stemmer("english")


class Matches(NamedTuple):
    """Words that a candidate and a reference share, or sums of them over a corpus.

    Attributes:
        candidate: Weight of the candidate's words that match.
        candidate_total: Weight of all its words.
        reference: Weight of the reference's words that match.
        reference_total: Weight of all its words.
        num_words: Number of words that match.
        num_chunks: Runs of words that match in the same order; 0 where the candidate equals the reference.
    """

    candidate: float = 0.0
    candidate_total: float = 0.0
    reference: float = 0.0
    reference_total: float = 0.0
    num_words: int = 0
    num_chunks: int = 0

    def score(self) -> float:
        """Returns the METEOR of the matches, from 0 to 1."""
        if not self.num_words:
            return 0.0
        precision, recall = self.candidate / self.candidate_total, self.reference / self.reference_total
        mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
        return mean * (1 - GAMMA * (self.num_chunks / self.num_words) ** BETA)


def meteor(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Computes METEOR of a corpus, from 0 to 1, by summing each candidate's matches with its best reference.

    The first reference wins where several are best.

    Args:
        candidates: Words of each candidate.
        references: Words of the references of each candidate, at least one.
    """
    best = [
        max((matches(candidate, reference) for reference in others), key=Matches.score)
        for candidate, others in zip(candidates, references, strict=True)
    ]
    return Matches(*(sum(column) for column in zip(*best, strict=True))).score()


def matches(candidate: Sequence[str], reference: Sequence[str], *, delta: float = DELTA) -> Matches:
    """Matches a candidate with one reference.

    Args:
        candidate: Words of the candidate.
        reference: Words of the reference.
        delta: Weight of a word; a function word counts 1 - delta.
    """
    pairs, num_chunks = align(candidate, reference)
    same = [1.0 if candidate[i] == reference[j] else STEM_MATCH for i, j in pairs]

    def weights(words: Iterable[str]) -> list[float]:
        return [1 - delta if word in FUNCTION_WORDS else delta for word in words]

    ours, theirs = weights(candidate), weights(reference)
    return Matches(
        candidate=sum(factor * ours[i] for factor, (i, _) in zip(same, pairs, strict=True)),
        candidate_total=sum(ours),
        reference=sum(factor * theirs[j] for factor, (_, j) in zip(same, pairs, strict=True)),
        reference_total=sum(theirs),
        num_words=len(pairs),
        num_chunks=0 if num_chunks == 1 and len(pairs) == len(candidate) == len(reference) else num_chunks,
    )


def align(candidate: Sequence[str], reference: Sequence[str]) -> tuple[tuple[Pair, ...], int]:
    """Pairs words of equal stems by beam search: as many as possible, in the fewest chunks, moved the least.

    Returns:
        Pairs of places in the candidate and in the reference, and the number of chunks.
    """
    places: dict[str, list[int]] = {}
    for j, word in enumerate(reference):
        places.setdefault(stem(word), []).append(j)
    # State on which later choices depend (the reference's words in use, the last pair) -> the best way to reach it.
    beam: dict[tuple[int, Pair], Way] = {(0, (-2, -2)): ((0, 0, 0), ())}
    for i, word in enumerate(candidate):
        ways = dict(beam)
        for (used, last), ((unmatched, chunks, moved), pairs) in beam.items():
            for j in places.get(stem(word), ()):
                if not used >> j & 1:
                    goes_on = last == (i - 1, j - 1)
                    way: Way = ((unmatched - 1, chunks + (not goes_on), moved + abs(i - j)), (*pairs, (i, j)))
                    state = (used | 1 << j, (i, j))
                    ways[state] = min(way, ways.get(state, way))
        beam = dict(sorted(ways.items(), key=lambda item: item[1][0])[:BEAM])
    (_, num_chunks, _), pairs = min(beam.values())
    return pairs, num_chunks


@lru_cache(maxsize=2**16)
def stem(word: str) -> str:
    """Returns the Snowball stem of an English word: `running` -> `run`."""
    stemmed: str = STEMMER.stemWord(word)
    return stemmed
