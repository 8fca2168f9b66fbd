"""Asks a question about a video and writes a caption for each of its clips; it is decoded once.

python examples/02_ask_and_caption.py samples/two-big-red-rings-move-left.avi "how many rings are there?"
"""

from __future__ import annotations

import sys

from hbi_infer import HBI


def main(video: str, question: str) -> None:
    """Prints the likeliest answers, and what each clip shows."""
    hbi = HBI.load()
    answer = hbi.answer(video, question)
    for candidate in answer.choices:
        print(f"{candidate.text}: {100 * candidate.probability:.1f} %")
    for caption in hbi.caption(video):
        print(f"{caption.start_seconds:.1f} to {caption.end_seconds:.1f} s: {caption.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
