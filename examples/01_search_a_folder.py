"""Searches a folder of videos, and says which words and frames made the best clip match.

python examples/01_search_a_folder.py samples "a small red circle moves left and then a blue square blinks"
"""

from __future__ import annotations

import sys

from hbi_infer import HBI


def main(folder: str, query: str) -> None:
    """Prints the three best clips, and the strongest pairs of the first at the entity level."""
    with HBI.load().index(folder) as index:
        matches = index.search(query, top_k=3)
        for match in matches:
            print(f"{match.rank}. {match.path.name}, {match.start_seconds:.1f} to {match.end_seconds:.1f} s")
        entity = index.explain(matches[0].path, query).levels[0]
    for row, column in entity.strongest(3):
        at = ", ".join(f"{seconds:.1f} s" for seconds in entity.frames[column])
        print(f"   {entity.words[row]} and the frame at {at}: {entity.interaction[row, column]:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
