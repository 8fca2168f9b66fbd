"""Which known file a new one is."""

from __future__ import annotations

import os
from pathlib import Path

from hbi_infer.index.content_mark import FileLook, read_mark
from hbi_infer.index.moves import find_moves
from hbi_infer.index.store import ContentMark, LedgerEntry


def write(folder: Path, name: str, content: bytes = b"a", time_ns: int = 10**18) -> tuple[Path, LedgerEntry]:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(time_ns, time_ns))
    look = FileLook.at(path)
    assert look
    return path, LedgerEntry(path=name, version=look.version)


def known(path: Path, entry: LedgerEntry, name: str, digest: bytes | None = None) -> LedgerEntry:
    mark = read_mark(path, entry.version)
    assert mark
    mark = ContentMark(digest or mark.digest, 5)
    return LedgerEntry(
        path=name, version=entry.version, mark=mark, duration_seconds=3.0, status="partial", reason="cut"
    )


def test_a_file_that_is_gone_is_moved_and_one_that_is_there_is_copied(tmp_path: Path) -> None:
    path, entry = write(tmp_path, "new.mp4")
    for gone in (["old.mp4"], []):
        (move,) = find_moves({path: entry}, [known(path, entry, "old.mp4")], gone).values()
        assert (move.source, move.entry.path, move.is_copy) == ("old.mp4", "new.mp4", not gone)
        assert (move.entry.duration_seconds, move.entry.status, move.entry.reason) == (3.0, "partial", "cut")
        assert move.entry.mark == read_mark(path, entry.version)


def test_another_size_time_or_content_is_another_file(tmp_path: Path) -> None:
    path, entry = write(tmp_path, "new.mp4")
    others = [
        write(tmp_path, "longer.mp4", b"aa"),
        write(tmp_path, "later.mp4", b"a", 10**18 + 1),
    ]
    ledger = [known(*other, other[1].path) for other in others]
    ledger.append(known(path, entry, "other.mp4", b"x" * 16))
    ledger.append(LedgerEntry(path="unmarked.mp4", version=entry.version))
    assert find_moves({path: entry}, ledger, {each.path for each in ledger}) == {}
    assert find_moves({}, ledger, []) == {}


def test_each_source_is_moved_once_and_the_one_of_the_same_name_is_preferred(tmp_path: Path) -> None:
    new = dict([write(tmp_path, "sub/b.mp4"), write(tmp_path, "sub/x.mp4"), write(tmp_path, "sub/y.mp4")])
    path, entry = next(iter(new.items()))
    ledger = [known(path, entry, name) for name in ("a.mp4", "b.mp4", "kept.mp4")]
    moves = {move.entry.path: move for move in find_moves(new, ledger, ["a.mp4", "b.mp4"]).values()}
    assert (moves["sub/b.mp4"].source, moves["sub/b.mp4"].is_copy) == ("b.mp4", False)
    assert (moves["sub/x.mp4"].source, moves["sub/x.mp4"].is_copy) == ("a.mp4", False)
    assert moves["sub/y.mp4"].is_copy


def test_thousands_of_files_of_one_content_take_no_square_of_time(tmp_path: Path) -> None:
    path, entry = write(tmp_path, "0.mp4")
    new = {path: entry}
    for number in range(1, 1500):
        os.link(path, tmp_path / f"{number}.mp4")
        new[tmp_path / f"{number}.mp4"] = LedgerEntry(path=f"{number}.mp4", version=entry.version)
    ledger = [known(path, entry, f"old/{number}.mp4") for number in range(1500)]
    moves = find_moves(new, ledger, {each.path for each in ledger})
    assert {(move.source, move.is_copy) for move in moves.values()} == {(each.path, False) for each in ledger}
    assert all(move.source == f"old/{move.entry.path}" for move in moves.values())
