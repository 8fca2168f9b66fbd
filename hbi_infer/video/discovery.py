"""Finding video files. This file imports no decoder, for a search of a prepared index needs none."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from hbi_engines.operating_system import may_enter
from hbi_infer.errors import InputError
from hbi_infer.files import is_folder, path_matcher
from hbi_infer.options import VIDEOS_BY_SUFFIX, Finding

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".360", ".3g2", ".3gp", ".3gp2", ".3gpp", ".asf", ".avc", ".avi", ".divx", ".evo", ".f4v", ".flv",
    ".gif", ".h264", ".h265", ".hevc", ".insv", ".ismv", ".lrv", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v",
    ".mk3d", ".mkv", ".mov", ".mp2v", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mqv", ".mts", ".ogm", ".ogv",
    ".qt", ".tp", ".trp", ".ts", ".vob", ".vro", ".webm", ".wm", ".wmv", ".xvid",
})
SUFFIXES_OF_SOME_VIDEOS = frozenset({".dat", ".mod", ".ogg", ".ogx", ".rec", ".tod"})
"""Suffixes of videos and of other files: the content decides."""

SUFFIXES_NOT_READ = frozenset({
    ".266", ".amv", ".apng", ".av1", ".avs2", ".avs3", ".bik", ".bk2", ".braw", ".cine", ".dav", ".dif", ".dirac",
    ".drc", ".dv", ".dvr-ms", ".flc", ".fli", ".gxf", ".h261", ".h263", ".h266", ".ivf", ".ivr", ".lxf", ".mjpeg",
    ".mjpg", ".mlv", ".mng", ".mtv", ".mve", ".mxf", ".nsv", ".nut", ".nuv", ".obu", ".pva", ".r3d", ".rm", ".rmvb",
    ".roq", ".ser", ".smk", ".swf", ".thp", ".ty", ".usm", ".vc1", ".viv", ".vivo", ".vvc", ".wtv", ".y4m",
})
"""Suffixes of videos in formats that are not read here; FFmpeg could read most of them."""

_CANDIDATES = VIDEO_SUFFIXES | SUFFIXES_OF_SOME_VIDEOS | SUFFIXES_NOT_READ

SYSTEM_FOLDERS = frozenset({
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle", "@sharebin", "@tmp",
    "__macosx", "found.000", "lost+found", "network trash folder", "recycled", "recycler", "system volume information",
    "temporary items", "~snapshot",
})
"""Folders in which systems keep previews and what was thrown away, in small letters; others are hidden anyway."""
# fmt: on

Reason: TypeAlias = Literal[
    "hidden",
    "system_folder",
    "excluded",
    "format_not_read",
    "no_video_inside",
    "not_a_file",
    "linked_twice",
    "linked_to_parent",
    "linked_to_nothing",
    "cannot_be_read",
    "other_suffix",
]
IN_WORDS: dict[Reason, str] = {
    "hidden": "hidden",
    "system_folder": "of the system",
    "excluded": "excluded",
    "format_not_read": "of a format that is not read",
    "no_video_inside": "without a video inside",
    "not_a_file": "not a regular file",
    "linked_twice": "linked to a folder that is searched already",
    "linked_to_parent": "linked to a folder around this one",
    "linked_to_nothing": "linked to nothing",
    "cannot_be_read": "closed to this user",
    "other_suffix": "without a video's suffix",
}
"""Words for each reason, to be read after a number or a name."""

MOST_NAMED = 3
"""Largest number of files of an unread format that a summary names."""

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of a file that is gone and of a link to nothing."""


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not searched for videos, though it lies in the folder.

    Attributes:
        path: Path relative to the folder, with "/" between its parts.
        reason: Why it is left out.
    """

    path: str
    reason: Reason


@dataclass(frozen=True)
class Found:
    """The content of a folder.

    Attributes:
        videos: Path of each video file, sorted.
        left_out: Files and folders that are not taken for videos, sorted by path; a folder stands for all that it
            holds.
        unreadable: Reason for each folder, and each file with a video's suffix, that cannot be looked at.
    """

    videos: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)


def find_videos(folder: Path | str, finding: Finding = VIDEOS_BY_SUFFIX) -> list[Path]:
    """Lists the video files in a folder and its subfolders, sorted; see `look_through`.

    Raises:
        InputError: There is no such folder.
    """
    return look_through(folder, finding).videos


def look_through(folder: Path | str, finding: Finding = VIDEOS_BY_SUFFIX) -> Found:
    """Finds the video files in a folder and its subfolders, going by their suffix, and tells what is left out.

    Linked folders are searched too, after all others and each real folder once, so that no link leads in circles.
    Hidden files and folders, and folders of the system, are left out.

    Args:
        folder: Where to look.
        finding: Choice of the files that are videos.

    Raises:
        InputError: There is no such folder.
    """
    if not is_folder(Path(folder)):
        raise InputError(f"{str(folder)!r} is not a folder; name a folder that holds videos")
    return _Search(Path(folder), finding).run()


def by_reason(left_out: Sequence[LeftOut]) -> dict[Reason, list[str]]:
    """Returns the paths that are left out for each reason, in the order of `IN_WORDS`."""
    paths: dict[Reason, list[str]] = {reason: [] for reason in IN_WORDS}
    for each in left_out:
        paths[each.reason].append(each.path)
    return {reason: some for reason, some in paths.items() if some}


def summary(left_out: Sequence[LeftOut]) -> str:
    """Returns how many files and folders are left out for each reason; those of a format that is not read by name."""
    parts = []
    for reason, paths in by_reason(left_out).items():
        names = [*paths[:MOST_NAMED], *["..."][: len(paths) - MOST_NAMED]] if reason == "format_not_read" else []
        parts.append(f"{len(paths)} {IN_WORDS[reason]}" + (f" ({', '.join(names)})" if names else ""))
    return ", ".join(parts)


class _Search:
    """One search of a folder.

    Args:
        folder: Where to look.
        finding: Choice of the files that are videos.
    """

    def __init__(self, folder: Path, finding: Finding) -> None:
        self._folder = os.fspath(folder)
        self._is_excluded = _exclusion(self._folder, finding.exclude)
        self._all_files = finding.all_files
        self._seen: set[tuple[int, int]] = set()
        self._links: list[str] = []
        self._found = Found()

    def run(self) -> Found:
        """Searches all real folders, then those behind links, so that what is in both is found at its real place."""
        self._walk(self._folder)
        parents = {key for parent in Path(self._folder).resolve().parents if (key := _identity(parent))}
        # The list grows: there are links behind links.
        for link in self._links:
            if reason := self._why_not_follow(link, parents):
                self._leave_out(link, reason)
            else:
                self._walk(link)
        self._found.videos.sort()
        self._found.left_out.sort(key=lambda each: each.path)
        return self._found

    def _walk(self, start: str) -> None:
        folders = [start]
        while folders:
            folder = folders.pop()
            key = _identity(folder)
            if key in self._seen:  # behind a link, and found at its real place
                continue
            self._seen |= {key} if key else set()
            folders += self._look_into(folder)

    def _why_not_follow(self, link: str, parents: set[tuple[int, int]]) -> Reason | None:
        key = _identity(link)
        if key in parents:
            return "linked_to_parent"
        inside = self._relative(os.path.realpath(link), os.path.realpath(self._folder))
        if inside and any(map(self._is_excluded, (inside, *map(str, PurePosixPath(inside).parents)))):
            return "excluded"
        return "linked_twice" if key in self._seen else None

    def _look_into(self, folder: str) -> list[str]:
        """Takes what is in a folder; returns its subfolders."""
        try:
            if not may_enter(folder):  # the names alone can be read
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._tell(folder, error)
            return []
        return [entry.path for entry in entries if self._take(entry)]

    def _take(self, entry: os.DirEntry[str]) -> bool:
        """Takes a video or notes why it is none; returns whether it is a folder that is to be searched at once."""
        reason: Reason | None
        try:
            is_a_folder = entry.is_dir()
        except OSError as error:
            if (reason := _reason_of(error)) == "cannot_be_read" and _suffix(entry.name) in VIDEO_SUFFIXES:
                self._tell(entry.path, error)
            else:
                self._leave_out(entry.path, reason)
            return False
        reason = self._why_not_search(entry) if is_a_folder else self._why_no_video(entry)
        if reason:
            self._leave_out(entry.path, reason)
        elif not is_a_folder:
            self._found.videos.append(Path(entry.path))
        elif entry.is_symlink():
            self._links.append(entry.path)
        else:
            return True
        return False

    def _why_not_search(self, entry: os.DirEntry[str]) -> Reason | None:
        """Returns why a folder is left out, None if it is not."""
        if entry.name.lower() in SYSTEM_FOLDERS:
            return "system_folder"
        return self._why_unwanted(entry)

    def _why_no_video(self, entry: os.DirEntry[str]) -> Reason | None:
        """Returns why a file is left out, None if it is a video."""
        # It may have led to a folder.
        if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
            return "linked_to_nothing"
        suffix = _suffix(entry.name)
        by_suffix = suffix in VIDEO_SUFFIXES
        if not (self._all_files or suffix in _CANDIDATES):
            return "other_suffix"
        if reason := self._why_unwanted(entry):
            return reason
        try:
            if not entry.is_file():
                return "not_a_file"
            if by_suffix:
                return None
            if suffix not in SUFFIXES_NOT_READ or self._all_files:
                from hbi_infer.video.content import has_video  # most folders have no such file

                if has_video(Path(entry.path)):
                    return None
                return "format_not_read" if suffix in SUFFIXES_NOT_READ else "no_video_inside"
        except OSError as error:
            return _reason_of(error)
        return "format_not_read"

    def _why_unwanted(self, entry: os.DirEntry[str]) -> Reason | None:
        if entry.name.startswith("."):
            return "hidden"
        return "excluded" if self._is_excluded(self._relative(entry.path)) else None

    def _leave_out(self, path: str, reason: Reason) -> None:
        self._found.left_out.append(LeftOut(self._relative(path), reason))

    def _tell(self, path: str, error: OSError) -> None:
        if error.errno not in _LEADS_NOWHERE:
            self._found.unreadable[Path(path)] = error.strerror or str(error)

    def _relative(self, path: str, folder: str = "") -> str:
        """Returns a path relative to the folder; empty if it is not inside."""
        # By hand: of ten thousand files, `Path.relative_to` takes longer than looking at them.
        start = os.path.join(folder or self._folder, "")  # noqa: PTH118
        return path[len(start) :].replace(os.sep, "/") if path.startswith(start) else ""


def _exclusion(folder: str, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Returns a function that says whether a path relative to the folder is left out by a pattern."""
    matchers = []
    for pattern in patterns:
        plain = pattern.replace(os.sep, "/").removeprefix("./").rstrip("/")
        matchers.append((path_matcher(plain), plain))
    root = folder.replace(os.sep, "/").rstrip("/")

    def is_excluded(path: str) -> bool:
        inside = (path, f"/{path}")
        names = (path.rpartition("/")[2],)
        return any(
            matches(spelling)
            for matches, pattern in matchers
            for spelling in (*inside, *((f"{root}/{path}",) if pattern[:1] == "/" else () if "/" in pattern else names))
        )

    return is_excluded


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each file takes longer than the search


def _identity(folder: str | Path) -> tuple[int, int] | None:
    """Returns what tells a real folder from every other one; None if it cannot be looked at or has no number."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - a Path for each folder takes longer
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else None


def _reason_of(error: OSError) -> Reason:
    return "linked_to_nothing" if error.errno in _LEADS_NOWHERE else "cannot_be_read"
