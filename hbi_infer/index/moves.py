"""Videos that are known under another name: renamed, moved or copied files, whose tokens are taken over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from hbi_infer.index.content_mark import read_mark
from hbi_infer.index.store import FileVersion, LedgerEntry, Move

_Content: TypeAlias = tuple[FileVersion, bytes]


def find_moves(
    new: Mapping[Path, LedgerEntry], known: Iterable[LedgerEntry], gone: Collection[str]
) -> dict[Path, Move]:
    """Finds the new files that hold the same as known ones: same size, same time of change, same head and tail.

    Of several known files, one that is gone and has the same file name is preferred, then any that is gone. One that
    is still there, or was taken before, is copied.

    Args:
        new: The entry of each new or changed file, as it is now.
        known: Entries of the ledger that may be taken over.
        gone: Names in the ledger at which the file that was indexed is no longer found.

    Returns:
        The move to each of the new files that is known.
    """
    by_version: dict[FileVersion, list[LedgerEntry]] = defaultdict(list)
    for entry in known:
        if entry.mark:
            by_version[entry.version].append(entry)
    marked = {
        path: replace(entry, mark=mark)
        for path, entry in new.items()
        if entry.version in by_version and (mark := read_mark(path, entry.version))
    }
    return _match(marked, by_version, gone) if marked else {}


def _match(
    marked: Mapping[Path, LedgerEntry],
    by_version: Mapping[FileVersion, list[LedgerEntry]],
    gone: Collection[str],
) -> dict[Path, Move]:
    any_known: dict[_Content, LedgerEntry] = {}
    of_name: dict[tuple[_Content, str], list[LedgerEntry]] = defaultdict(list)
    of_content: dict[_Content, list[LedgerEntry]] = defaultdict(list)
    for version in {entry.version for entry in marked.values()}:
        for entry in by_version[version]:
            content = _content(entry)
            any_known.setdefault(content, entry)
            if entry.path in gone:
                of_name[content, PurePosixPath(entry.path).name].append(entry)
                of_content[content].append(entry)
    moves: dict[Path, Move] = {}
    taken: set[str] = set()

    def take(path: Path, entry: LedgerEntry, sources: list[LedgerEntry]) -> None:
        while sources and path not in moves:
            source = sources.pop()
            if source.path not in taken:
                taken.add(source.path)
                moves[path] = Move(source.path, replace(source, path=entry.path, mark=entry.mark), is_copy=False)

    for path, entry in marked.items():
        take(path, entry, of_name.get((_content(entry), path.name), []))
    for path, entry in marked.items():
        take(path, entry, of_content.get(_content(entry), []))
        if path not in moves and (source := any_known.get(_content(entry))):
            moves[path] = Move(source.path, replace(source, path=entry.path, mark=entry.mark), is_copy=True)
    return moves


def _content(entry: LedgerEntry) -> _Content:
    assert entry.mark
    return entry.version, entry.mark.digest
