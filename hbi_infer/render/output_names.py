"""Names a file for each video of a folder, so that no two videos share one on any file system."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath

from hbi_infer.files import fitting_name, one_form, short_hash

_MOST_DISTINCT = 2


def output_paths(videos: Iterable[PurePath], suffix: str, longest_name: int) -> dict[PurePath, PurePath]:
    """Returns the path of the file for each video; the same videos give the same paths, in whatever order.

    A file has the name of its video with another suffix. Videos whose files would have one name, or names that some
    file systems do not tell apart, keep their own suffix in it (a.mp4.srt, a.mkv.srt), and where that is not enough, it
    holds a hash of the path.

    Args:
        videos: Paths of the videos, relative to their folder.
        suffix: Suffix of the files, such as ".srt".
        longest_name: Most bytes of a name.
    """
    distinct = dict.fromkeys(videos, 0)
    while True:
        paths = {video: _path(video, how, suffix, longest_name) for video, how in distinct.items()}
        sharing = defaultdict(list)
        for video, path in paths.items():
            sharing[_as_any_file_system_has_it(path)].append(video)
        folders = {_as_any_file_system_has_it(folder) for path in paths.values() for folder in path.parents}
        clashes = [
            video
            for key, some in sharing.items()
            if len(some) > 1 or key in folders
            for video in some
            if distinct[video] == min(map(distinct.__getitem__, some)) < _MOST_DISTINCT
        ]
        if not clashes:
            return paths
        for video in clashes:
            distinct[video] += 1


def _path(video: PurePath, distinct: int, suffix: str, longest_name: int) -> PurePath:
    names = (video.stem, video.name, f"{video.name}~{short_hash(video.as_posix())}")
    return video.with_name(fitting_name(names[distinct], suffix, longest_name))


def _as_any_file_system_has_it(path: PurePath) -> str:
    """Returns a path without what some file systems do not tell apart: case, and the forms of a letter."""
    return one_form(path.as_posix()).casefold()
