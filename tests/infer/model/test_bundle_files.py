"""Folders and zips of bundles: listed once, read no further than they state, and nothing odd in a zip."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.bundle_files import open_files
from tests.builders.tiny_bundle import write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def zipped(folder: Path, edit: Callable[[zipfile.ZipFile], object] = lambda _: None, method: int = 8) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that is there twice
        for file in folder.iterdir():
            archive.write(file, file.name)
        edit(archive)
    return path


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link.onnx")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda z: z.writestr("tokenizer.json", b"{}"), "holds 'tokenizer.json' twice"),
        (lambda z: z.writestr("bundle.json", b"{}"), "holds 'bundle.json' twice"),
        (lambda z: z.writestr(".//tokenizer.json", b"{}"), "holds './/tokenizer.json' twice"),
        (lambda z: z.writestr(link(), "/etc/passwd"), "holds 'link.onnx', which is a link"),
        (lambda z: z.writestr("../x/", b""), "holds the name '../x/', which leads out of it"),
        (lambda z: z.writestr("a", b"a", zipfile.ZIP_LZMA), "holds 'a', compressed in another way than deflate"),
        (lambda z: z.writestr("a", b"a", zipfile.ZIP_BZIP2), "holds 'a', compressed in another way than deflate"),
        (lambda z: [z.writestr(f"{n:0100}", b"") for n in range(8_000)], "its directory has"),
    ],
)
def test_odd_members_are_told(folder: Path, edit: Callable[[zipfile.ZipFile], object], message: str) -> None:
    path = zipped(folder, edit)
    with pytest.raises(BundleError) as caught:
        Bundle.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_encrypted_members_are_told(folder: Path) -> None:
    content = bytearray(zipped(folder).read_bytes())
    for signature, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(signature) + place] |= 1
    folder.with_suffix(".zip").write_bytes(content)
    with pytest.raises(BundleError, match="which is encrypted: make the zip without a password"):
        Bundle.load(folder.with_suffix(".zip"))


def restated(path: Path, name: str, size_bytes: int) -> None:
    """States another size of a member, in the directory alone."""
    content = bytearray(path.read_bytes())
    place = content.rindex(name.encode()) - 46
    content[place + 24 : place + 28] = struct.pack("<I", size_bytes)
    path.write_bytes(content)


def test_a_member_that_unfolds_to_more_than_it_states_is_not_unfolded(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(bytes(50_000_000))
    path = zipped(folder)
    restated(path, "tokenizer.json", 1000)
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read \(Bad CRC"):
        Bundle.load(path).tokenizer_json()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_has_less_than_it_states_is_told(folder: Path, method: int) -> None:
    path = zipped(folder, method=method)
    restated(path, "tokenizer.json", 60_000_000)
    with pytest.raises(BundleError, match=r"tokenizer\.json (should have 60,000,000 bytes|cannot be read)"):
        Bundle.load(path).tokenizer_json()


def test_a_huge_manifest_in_a_zip_is_not_read(folder: Path) -> None:
    (folder / "bundle.json").write_bytes(bytes(100_000_000))
    with pytest.raises(BundleError, match="has 100,000,000 bytes; the most is 1,048,576"):
        Bundle.load(zipped(folder))


def test_a_huge_tokenizer_is_not_read(folder: Path) -> None:
    with (folder / "tokenizer.json").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(BundleError, match="has 1,099,511,627,776 bytes; the most is 67,108,864"):
        Bundle.load(folder).tokenizer_json()


def test_what_was_listed_is_what_is_read(folder: Path) -> None:
    """The zip is replaced after it was loaded."""
    path = zipped(folder)
    bundle = Bundle.load(path)
    other = path.with_name("other")
    other.write_bytes(b"not a zip")
    other.replace(path)
    bundle.verify()
    with pytest.raises(BundleError, match="cannot be read as a bundle"):
        Bundle.load(path)


@pytest.mark.parametrize(("change", "found"), [(b"", "0"), (b"more than there was" * 9000, "more")])
def test_a_file_that_changes_its_size_is_told(folder: Path, change: bytes, found: str) -> None:
    bundle = Bundle.load(folder)
    (folder / "tokenizer.json").write_bytes(change)
    with pytest.raises(
        BundleError, match=rf"tokenizer\.json should have [\d,]+ bytes and has {found}: copy the bundle"
    ):
        bundle.tokenizer_json()


def test_what_is_no_file_is_no_bundle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "a\0b", tmp_path / ("a" * 5000)):
        with pytest.raises(BundleError, match=r"there is no bundle|cannot be read as a bundle"):
            open_files(path)


def test_every_end_of_a_zip_is_one_line(folder: Path) -> None:
    content = zipped(folder).read_bytes()
    path = folder.with_name("cut.zip")
    for size in range(0, len(content), len(content) // 50):
        path.write_bytes(content[:size])
        with pytest.raises(BundleError) as caught:
            Bundle.load(path).verify()
        assert "\n" not in str(caught.value)
