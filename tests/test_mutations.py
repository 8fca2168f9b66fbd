"""Some hundred damaged videos, the same ones at each run: each gives a result with a reason, and costs no other."""

from __future__ import annotations

from pathlib import Path

from tests.builders.mutations import WAYS, outcomes, write_mutations
from tests.builders.video_files import FORMATS


def test_damaged_videos_give_results_that_make_sense(tmp_path: Path) -> None:
    mutations = list(write_mutations(tmp_path, 2 * len(FORMATS) * len(WAYS), seed=12))
    counts, wrong = outcomes(mutations)
    assert wrong == []
    assert counts.total() == len(mutations)
    assert {container for container, _ in counts} == set(FORMATS)
    assert {outcome.partition(":")[0] for _, outcome in counts} == {"ok", "partial", "failed"}
