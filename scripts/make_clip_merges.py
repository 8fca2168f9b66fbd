"""Make hbi_infer/data/clip_merges.txt.gz from the merge table that OpenAI published with CLIP.

    python scripts/make_clip_merges.py bpe_simple_vocab_16e6.txt.gz

That table (MIT licence) comes with the CLIP repository and inside the wheels of `open_clip_torch` and `clip-anytorch`.
CLIP uses the first 48,894 of its 262,144 merges; only those are kept, one a line, in order.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

NUM_MERGES = 49_408 - 512 - 2
"""The vocabulary less the byte symbols (with and without the end-of-word mark) and the two special tokens."""

TARGET = Path(__file__).parent.parent / "hbi_infer" / "data" / "clip_merges.txt.gz"


def main() -> None:
    """Read the published table and write the short one."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # The first line is a version, not a merge.
    lines = gzip.decompress(Path(sys.argv[1]).read_bytes()).decode().split("\n")[1 : NUM_MERGES + 1]
    if len(lines) != NUM_MERGES or any(len(line.split(" ")) != 2 for line in lines):
        sys.exit(f"{sys.argv[1]} does not hold {NUM_MERGES} merges of two symbols: is it bpe_simple_vocab_16e6.txt.gz?")
    TARGET.parent.mkdir(exist_ok=True)
    # No time stamp: the same table gives the same file.
    TARGET.write_bytes(gzip.compress("\n".join(lines).encode(), compresslevel=9, mtime=0))
    print(f"{TARGET}: {NUM_MERGES} merges, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
