"""Measures a question about an indexed clip, in a new process and in one that has the model loaded.

    python benchmarks/answering.py [--bundle PATH] [--video FILE] [--repeats 15]

The clip is indexed first: nothing is decoded while it is measured. Cold is the whole command, `hbi-infer qa` about that
file, from the start of Python to the answer; warm is the same with an open index. Without --bundle, the embedded one is
measured. Writes benchmarks/results/answering.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import write_result
from timing import timed

from hbi_infer import HBI
from hbi_infer.api import Index
from hbi_infer.index.clip_tokens import clips_of_video, video_tokens
from hbi_infer.model.bundle import default_bundle_path
from hbi_infer.tasks.qa import Answer, answer_clips, encode_questions

COMMAND = [sys.executable, "-c", "from hbi_infer.cli import main; main()"]
SAMPLES = Path(__file__).parent.parent / "samples"
VIDEO = SAMPLES / "small-red-circle-moves-left-then-blue-square-blinks.mp4"
QUESTION = "what colour is the circle?"


def answer_from(index: Index, video: Path) -> Answer:
    """Answers the question about a video out of an open index."""
    clips = clips_of_video(video_tokens(index.encoder, video, index))
    return answer_clips(index.encoder, encode_questions(index.encoder, [QUESTION]), clips)[0][0]


def measure(bundle: Path, video: Path, repeats: int, cache: Path) -> dict[str, Any]:
    """Measures cold and warm, with an index in `cache`, taken for the user's cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    hbi = HBI.load(bundle)
    with Index.open(video.parent, hbi) as index:
        index.update(workers=1)
        answer = answer_from(index, video)
        warm = timed(lambda: answer_from(index, video), repeats)
    asked = ["qa", "--bundle", str(bundle), "--video", str(video), "--question", QUESTION]
    cold = timed(lambda: subprocess.run([*COMMAND, *asked], check=True, capture_output=True), repeats)
    return {
        "bundle": {"name": hbi.bundle.manifest.name, "sha256": hbi.bundle.sha256},
        "device": hbi.device_reason,
        "question": QUESTION,
        "answers": len(hbi.bundle.manifest.answers),
        "likeliest": [choice.text for choice in answer.choices],
        "seconds": {"cold": cold, "warm": warm},
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    parser.add_argument("--video", type=Path, default=VIDEO)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "videos"
        folder.mkdir()
        video = Path(shutil.copy(options.video, folder))
        result = measure(options.bundle, video, options.repeats, Path(temporary) / "cache")
    for name, taken in result["seconds"].items():
        print(f"{name}: {1000 * taken['median']:.1f} ms")
    print(write_result("answering", result))


if __name__ == "__main__":
    main()
