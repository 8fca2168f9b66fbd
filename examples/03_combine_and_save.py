"""Searches for two things together, without a third, and saves the best moment and a contact sheet.

python examples/03_combine_and_save.py samples found "a small red circle moves left" "a blue square blinks"
"""

from __future__ import annotations

import sys
from pathlib import Path

from hbi_infer import HBI, Searching
from hbi_infer.errors import VideoError
from hbi_infer.render.contact_sheet import write_sheet
from hbi_infer.render.saved_clips import save_clips


def main(folder: str, out: str, *queries: str) -> None:
    """Prints the two clips that match all queries best, and the file of each."""
    options = Searching(top_k=2, without=("a green ring bounces",), dedupe="near")
    with HBI.load().index(folder) as index:
        matches = index.search(queries, options)
    for match, saved in save_clips([matches], out):
        result = saved if isinstance(saved, VideoError) else saved.path.name
        print(f"{match.rank}. {match.path.name}: {result}")
    write_sheet([(" and ".join(queries), matches)], Path(out) / "sheet.html", overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
