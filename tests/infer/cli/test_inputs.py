"""What commands share: hints about failures, and an index that another process makes anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from hbi_infer.api import HBI, Index
from hbi_infer.cli.inputs import FolderOptions, end_with, updated_index
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.store import VideoFault
from hbi_infer.index.update import IndexProgress


def test_a_failure_that_may_pass_says_how_to_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end:
        end_with([VideoFault("a.mp4", "was slow", "too_slow"), VideoFault("b.mp4", "is empty", "damaged")], "searched")
    assert end.value.exit_code == 3
    slow, empty = capsys.readouterr().err.splitlines()
    assert slow.startswith("warning: a.mp4 cannot be searched: was slow; ")
    assert slow.endswith("; try again with hbi-infer index --retry-failed")
    assert empty == "warning: b.mp4 cannot be searched: is empty"


def test_an_index_that_another_process_makes_anew_while_it_is_used_is_told(
    library: Path, bundle: Path, tmp_path: Path
) -> None:
    model = HBI.load(bundle, device="cpu")
    options = FolderOptions(location=tmp_path / "i.sqlite", workers=1)

    def stop(progress: IndexProgress) -> None:
        if progress.clips:
            raise KeyboardInterrupt

    def begin_anew() -> None:
        with (
            Index.open(library, model, location=options.location, rebuild=True) as index,
            pytest.raises(KeyboardInterrupt),
        ):
            index.update(workers=0, progress=stop)

    def use(meanwhile: Callable[[], None]) -> int:
        with updated_index(model, library, options) as (index, _):
            meanwhile()
            return index.store.num_clips()

    assert use(lambda: None) == 4
    with pytest.raises(IndexStoreError, match=r"another process made the index .* anew meanwhile: .*; try again"):
        use(begin_anew)
    assert use(lambda: None) == 4
