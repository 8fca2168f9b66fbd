"""METEOR: the alignment is the best of all, and what lowers the score."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.evaluation.meteor import align, meteor, stem

VOCABULARY = st.sampled_from(["a", "man", "men", "sings", "singing", "song", "red", "the", "is", "running"])


class TestMeteor:
    @given(st.lists(VOCABULARY, max_size=6), st.lists(VOCABULARY, max_size=6))
    @settings(max_examples=200, deadline=None)
    def test_the_alignment_is_the_best_of_all(self, candidate: list[str], reference: list[str]) -> None:
        pairs, num_chunks = align(candidate, reference)
        assert all(stem(candidate[i]) == stem(reference[j]) for i, j in pairs)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        assert chunks(pairs) == num_chunks
        options = [
            [None, *(j for j, theirs in enumerate(reference) if stem(ours) == stem(theirs))] for ours in candidate
        ]
        every = []
        for chosen in product(*options):
            taken = [(i, j) for i, j in enumerate(chosen) if j is not None]
            if len({j for _, j in taken}) == len(taken):
                every.append((-len(taken), chunks(tuple(taken)), sum(abs(i - j) for i, j in taken)))
        assert (-len(pairs), num_chunks, sum(abs(i - j) for i, j in pairs)) == min(every)

    def test_stems_count_less_and_fragments_cost(self) -> None:
        exact, stems, turned = (
            meteor([text.split()], [[["the", "man", "walks"]]])
            for text in ("the man walks", "the man walking", "walks the man")
        )
        assert 1 == exact > stems > turned > 0


def chunks(pairs: tuple[tuple[int, int], ...]) -> int:
    return len(pairs) - sum((i + 1, j + 1) in pairs for i, j in pairs)
