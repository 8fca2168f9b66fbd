"""What a rehearsal loads is all that decoding needs: nothing is loaded by the videos and pictures after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.builders.video_files import write_video
from tests.paths import ROOT

CODE = """
import sys
from hbi_infer.options import FrameSampling
from hbi_infer.video import pool, rehearsal
from hbi_infer.video.reader import decode
rehearsal.rehearse(with_photo=True)
loaded = set(sys.modules)
from hbi_infer.video.photo import read_photo
sampling = FrameSampling(image_size=32)
for path in sys.argv[1:]:
    print((read_photo if path.endswith(("png", "jpg", "webp")) else decode)(path, sampling).status)
print(*set(sys.modules) - loaded)
"""


def test_nothing_is_loaded_after_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.mp4", "b.avi", "c.mkv", "d.png", "e.jpg", "f.webp")]
    for path in paths[:3]:
        write_video(path, num_frames=30)
    for path in paths[3:]:
        Image.new("RGB", (64, 48), (200, 30, 30)).save(path)
    command = [sys.executable, "-c", CODE, *map(str, [*paths, ROOT / "samples" / "damaged.mp4"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [*["ok"] * 6, "failed", "", ""]
