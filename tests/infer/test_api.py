"""The Python API: a model and an index with the tasks as their methods."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hbi_infer import HBI
from hbi_infer.errors import BundleError, InputError
from tests.builders.tiny_bundle import (
    write_tiny_bundle,
    write_video,
)
from tests.paths import ROOT


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def hbi(bundle_path: Path) -> HBI:
    return HBI.load(bundle_path, device="cpu", threads=1)


def test_index_and_search_a_folder(hbi: HBI, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write_video(folder / "red.mp4", "red", seconds_each=1.0)
    write_video(folder / "blue.mp4", "blue", seconds_each=1.0)
    (folder / "damaged.mp4").write_bytes(b"damaged")
    with hbi.index(folder, location=tmp_path / "index.sqlite") as index:
        assert [match.path.name for match in index.search("a red video")] == ["red.mp4", "blue.mp4"]
        assert [fault.path for fault in index.failures()] == ["damaged.mp4"]
    (match,) = hbi.search(folder, "blue", location=tmp_path / "index.sqlite", top_k=1)
    assert match.path == folder / "blue.mp4"


def test_an_index_that_cannot_be_updated_is_closed(hbi: HBI, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for _ in range(2):
        with pytest.raises(InputError, match="no videos in"):
            hbi.index(tmp_path / "videos", location=tmp_path / "index.sqlite")
    assert not list(tmp_path.glob("*-wal")), "SQLite removes its log when the last connection is closed"


def test_a_model_is_loaded_by_name(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HBI.load("shapes").bundle.manifest.name == "shapes"
    monkeypatch.setenv("HBI_BUNDLE", str(bundle_path))
    assert HBI.load().bundle.manifest.name == "tiny"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="there is no bundle at openai/clip"):
        HBI.load(Path("openai/clip"))
    with pytest.raises(InputError, match="no model of that name: the nearest known model is everyday"):
        HBI.load("everday")


def test_importing_the_package_imports_nothing_else() -> None:
    script = (
        "import sys, hbi_infer; print(sorted(name for name in sys.modules if name.startswith(('hbi', 'numpy', 'av'))));"
        "from hbi_infer import HBI; print(HBI.__module__); print(hasattr(hbi_infer, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['hbi_infer']", "hbi_infer.api", "False"]
