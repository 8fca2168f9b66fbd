"""The bundles in the user's data folder: found by name, put there as a whole or not at all, one build at a time.

bundles/owner--name/revisions.json          which commit each revision that was asked for is
bundles/owner--name/COMMIT-VERSION/         a bundle, made of that commit by that version of the converter
bundles/everyday/VERSION/
downloads/owner--name/COMMIT/               files of the hub, until a bundle is made of them
building/                                   bundles in the making; what is left there is thrown away
lock                                        the right to build, which ends with the process
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from hbi_engines.operating_system import is_ours
from hbi_infer.catalog.names import EVERYDAY, HubName
from hbi_infer.errors import BundleError
from hbi_infer.model.bundle_files import MANIFEST
from hbi_infer.model.strict_json import parse_strictly

LOCK_POLL_SECONDS = 0.1
RECORD = "revisions.json"
RECORD_LIMIT_BYTES = 2**20
COMMIT = re.compile(r"[0-9a-f]{40}")


def data_folder() -> Path:
    """Returns the folder of the bundles that are built on this machine."""
    return platformdirs.user_data_path("hbi-infer")


@dataclass(frozen=True)
class Shelved:
    """A bundle that was built on this machine.

    Attributes:
        name: "everyday", or the model of the hub; a bundle that several revisions mean is there for each.
        commit: Commit of the hub; "" for "everyday".
        version: Version of the converter that made it.
        path: The bundle's folder.
    """

    name: str | HubName
    commit: str
    version: str
    path: Path


@dataclass(frozen=True)
class Revisions:
    """The content of a model's revisions.json: its name as it was first written, and revision -> commit."""

    model: str
    commits: Mapping[str, str]


class Shelf:
    """The user's bundles.

    Args:
        folder: The data folder; by default the user's own.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = data_folder() if folder is None else Path(folder)

    def find(self, name: str | HubName, version: str) -> Path | None:
        """Returns the folder of the bundle that a name means and a version of the converter made; None without one.

        Raises:
            BundleError: The record of the model's revisions is damaged.
        """
        commit = ""
        if isinstance(name, HubName):
            commits = self._revisions(name.model).commits
            if (commit := commits.get(name.revision, name.revision)) and not COMMIT.fullmatch(commit):
                return None
        place = self._place(name, commit, version)
        return place if (place / MANIFEST).is_file() else None

    def shelved(self) -> list[Shelved]:
        """Returns every bundle, those of older converters too, in order of name.

        Raises:
            BundleError: A record of revisions is damaged.
        """
        found = []
        for place in sorted((self.folder / "bundles").glob(f"*/*/{MANIFEST}")):
            slug, (commit, _, version) = place.parent.parent.name, place.parent.name.rpartition("-")
            if slug == EVERYDAY:
                found.append(Shelved(EVERYDAY, "", version, place.parent))
            elif COMMIT.fullmatch(commit):
                record = self._read(place.parent.parent)
                names = [HubName(record.model, each) for each, of in record.commits.items() if of == commit]
                found += [Shelved(name, commit, version, place.parent) for name in names]
        return found

    @contextmanager
    def sole_builder(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the right to build and to remove; throws away what a build that was killed has left.

        Args:
            on_wait: Called once if another process has the right and this one begins to wait.

        Raises:
            BundleError: The data folder cannot be written.
        """
        file = self.folder / "lock"
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = file.open("ab")
        with stream:
            waiting = False
            while not is_ours(stream):
                if not waiting and on_wait is not None:
                    on_wait()
                waiting = True
                time.sleep(LOCK_POLL_SECONDS)
            with _told(self.folder):
                self._throw_away()
            yield

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Yields a new folder, on the disk of the bundles, and throws it away in the end; for the sole builder.

        Raises:
            BundleError: The data folder cannot be written.
        """
        with _told(self.folder):
            (self.folder / "building").mkdir(exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.folder / "building"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, built: Path | str, name: str | HubName, commit: str, version: str) -> Path:
        """Puts a bundle in its place, notes which commit its revision is, and removes those that no name means more.

        Args:
            built: The bundle's folder, inside the one that `building` yields.
            name: Name for which it was built.
            commit: Commit of the hub; "" for "everyday".
            version: Version of the converter.

        Returns:
            The bundle's folder.

        Raises:
            BundleError: The data folder cannot be written.
        """
        place = self._place(name, commit, version)
        with _told(self.folder):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                self._discard(place)
            Path(built).rename(place)
            wanted = self._note(name, commit) if isinstance(name, HubName) else {commit}
            self._keep_only(place.parent, wanted, version)
        return place

    def point(self, name: HubName, commit: str) -> None:
        """Notes that a revision is a commit whose bundle is there already; for the sole builder.

        Raises:
            BundleError: The data folder cannot be written.
        """
        with _told(self.folder):
            self._note(name, commit)

    def remove(self, name: str | HubName) -> int:
        """Removes the bundles that nothing but this name means, and the model's downloads; for the sole builder.

        Returns:
            Size of what was removed, in bytes; 0 if there was nothing.

        Raises:
            BundleError: The data folder cannot be written, or the record of revisions is damaged.
        """
        bundles, downloads = (self.folder / room / _slug(name) for room in ("bundles", "downloads"))
        before = size_of(bundles) + size_of(downloads)
        left = dict(self._read(bundles).commits) if isinstance(name, HubName) else {}
        left.pop(getattr(name, "revision", ""), None)
        with _told(self.folder):
            if isinstance(name, HubName) and left:
                self._write(bundles, Revisions(name.model, left))
                self._keep_only(bundles, set(left.values()))
            elif bundles.exists():
                self._discard(bundles)
            if downloads.exists():
                self._discard(downloads)
        return before - size_of(bundles)

    def _keep_only(self, folder: Path, commits: Set[str], version: str | None = None) -> None:
        """Removes a model's bundles of other commits, and those of other versions of the converter."""
        for place in folder.iterdir():
            made_of, _, by = place.name.rpartition("-")
            if place.is_dir() and (made_of not in commits or version not in (None, by)):
                self._discard(place)

    def downloads(self, name: HubName, commit: str) -> Path:
        """Returns the folder for the files of a commit of the hub; it may not be there yet."""
        return self.folder / "downloads" / _slug(name) / commit

    def forget_downloads(self, name: HubName) -> None:
        """Removes a model's downloads, of all commits; for the sole builder.

        Raises:
            BundleError: The data folder cannot be written.
        """
        folder = self.folder / "downloads" / _slug(name)
        with _told(self.folder):
            if folder.exists():
                self._discard(folder)

    def unfinished(self) -> dict[str, int]:
        """Returns the models of the hub whose download is not finished, with the bytes that are there."""
        folders = sorted((self.folder / "downloads").glob("*--*"))
        return {folder.name.replace("--", "/"): size for folder in folders if (size := size_of(folder))}

    def _place(self, name: str | HubName, commit: str, version: str) -> Path:
        return self.folder / "bundles" / _slug(name) / (f"{commit}-{version}" if commit else version)

    def _revisions(self, model: str) -> Revisions:
        record = self._read(self.folder / "bundles" / _slug(HubName(model)))
        return Revisions(record.model or model, record.commits)

    def _read(self, folder: Path) -> Revisions:
        """Reads revisions.json of a folder; there is none for a model that was never built."""
        file = folder / RECORD
        try:
            with file.open("rb") as stream:
                document: Any = parse_strictly(stream.read(RECORD_LIMIT_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return Revisions("", {})
        except (OSError, ValueError) as error:
            raise _damaged(file, str(error)) from error
        model = document.get("model") if isinstance(document, dict) else None
        commits = document.get("commits") if isinstance(document, dict) else None
        if not (isinstance(model, str) and HubName.parse(model) and isinstance(commits, dict)):
            raise _damaged(file, "it has no model and commits")
        if not all(isinstance(commit, str) and COMMIT.fullmatch(commit) for commit in commits.values()):
            raise _damaged(file, "it names what is no commit")
        return Revisions(model, commits)

    def _note(self, name: HubName, commit: str) -> set[str]:
        """Notes which commit a revision is; returns the commits that some revision is."""
        folder = self.folder / "bundles" / _slug(name)
        commits: dict[str, str] = {}
        with suppress(BundleError):  # a damaged record is replaced
            commits.update(self._read(folder).commits)
        commits[name.revision] = commit
        self._write(folder, Revisions(name.model, commits))
        return set(commits.values())

    def _write(self, folder: Path, record: Revisions) -> None:
        new = folder / f".{RECORD}.new"
        with new.open("w", encoding="utf-8") as stream:
            json.dump(asdict(record), stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(folder / RECORD)

    def _discard(self, place: Path) -> None:
        """Removes a folder so that at no moment a part of it is taken for a bundle."""
        (self.folder / "building").mkdir(exist_ok=True)
        grave = Path(tempfile.mkdtemp(dir=self.folder / "building"))
        place.rename(grave / "old")
        shutil.rmtree(grave, ignore_errors=True)

    def _throw_away(self) -> None:
        for left in (self.folder / "building").glob("*"):
            shutil.rmtree(left, ignore_errors=True)


def size_of(folder: Path | str) -> int:
    """Returns the size of the files in a folder and below it, in bytes; 0 if there is none."""
    return sum(file.lstat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _slug(name: str | HubName) -> str:
    """Returns the name of a model's folder; the hub knows no name with two hyphens."""
    return name.model.replace("/", "--") if isinstance(name, HubName) else name


def _damaged(file: Path, reason: str) -> BundleError:
    return BundleError(
        f"{file} is damaged ({reason}): delete it, and get the model again with: hbi-infer models get NAME"
    )


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turns what the system says of the data folder into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"cannot write the models' folder {folder} ({error.strerror or error}): free space or mend its "
            "permissions, or set XDG_DATA_HOME to another place"
        ) from error
