"""Folders of `shapes` clips: H.264 mp4 files and one JSONL manifest for each split."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbi_engines.operating_system import usable_cpus
from hbi_infer.errors import DataError
from hbi_training.data.shapes.captions import Told, captions_with_phrases, hard_negatives, story_of, tell
from hbi_training.data.shapes.questions import questions
from hbi_training.data.shapes.reading import ATTRIBUTES, attributes_right
from hbi_training.data.shapes.render import render
from hbi_training.data.shapes.scene import CLIP_SECONDS, SALT, SPLITS, Scene, Split, sample_scene

IMAGE_SIZE = 96
FRAMES_PER_SECOND = 12
BATCH = 16  # clips handed to a worker at a time


def scene_at(seed: int, split: Split, number: int, attempt: int = 0) -> Scene:
    """Draws the scene with this number; a higher attempt draws another, for scenes that repeat an earlier caption."""
    return sample_scene(np.random.default_rng([seed, SPLITS.index(split), number, attempt]), split)


def scenes(seed: int, split: Split, num: int) -> Iterator[Scene]:
    """Yields the first `num` scenes of a split; a larger `num` begins with the same ones.

    Outside training no two have the same canonical caption, unless 100 attempts find only known ones, for the metrics
    count one right video per caption.
    """
    told: set[str] = set()
    for number in range(num):
        scene = scene_at(seed, split, number)
        attempt = 0
        while split != "train" and tell(story_of(scene)) in told and attempt < 100:
            attempt += 1
            scene = scene_at(seed, split, number, attempt)
        told.add(tell(story_of(scene)))
        yield scene


def write_shapes(
    out: Path | str, num_train: int, num_val: int, num_test: int, seed: int = 0, workers: int | None = None
) -> None:
    """Writes `out/videos/{split}_{number:06d}.mp4` and `out/{train,val,test}.jsonl`.

    Existing clips are kept, and a file appears under its name only when complete, so an interrupted run resumes where
    it stopped, and more clips can be added to those of the same seed.

    Args:
        out: Folder to write, made if missing.
        num_train: Number of clips for training.
        num_val: Number of clips for validation, each with a caption of its own.
        num_test: Number of clips for testing, likewise.
        seed: Random seed, which determines the data set.
        workers: Number of processes; None for one per CPU that this process may use.

    Raises:
        DataError: The folder cannot be written or holds clips of another seed.
    """
    out = Path(out)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        (out / "videos").mkdir(parents=True, exist_ok=True)
        _claim(out / "shapes.json", {"salt": SALT, "seed": seed})
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}; choose another folder") from error
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        ProcessPoolExecutor(workers or len(usable_cpus()), context, _ignore_interrupts) as pool,
    ):
        try:
            for split, num in zip(SPLITS, (num_train, num_val, num_test), strict=True):
                # Scenes that must be distinct are drawn here, in order; the workers draw training scenes.
                drawn = repeat(None, num) if split == "train" else scenes(seed, split, num)
                made = pool.map(partial(_write_clip, out, seed, split), range(num), drawn, chunksize=BATCH)
                lines = list(progress.track(made, total=num, description=split))
                _write_whole(out / f"{split}.jsonl", "".join(lines))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def captions_right(folder: Path | str, split: Split, captions: Mapping[str, str]) -> dict[str, float]:
    """Returns the percent of captions that are right about their clips, by attribute (see `attributes_right`).

    Args:
        folder: Folder that `write_shapes` wrote.
        split: Split of the clips.
        captions: Name of a clip's file -> its caption.
    """
    folder = Path(folder)
    seed = json.loads((folder / "shapes.json").read_text())["seed"]
    numbers = {name: int(Path(name).stem.removeprefix(f"{split}_")) for name in captions}
    drawn = list(scenes(seed, split, max(numbers.values()) + 1))
    right = [attributes_right(caption, drawn[numbers[name]]) for name, caption in captions.items()]
    return {name: 100 * sum(found[name] for found in right) / len(right) for name in ATTRIBUTES}


def write_video(path: Path | str, frames: NDArray[np.uint8]) -> None:
    """Encodes (N, H, W, 3) uint8 frames as H.264 in mp4, `FRAMES_PER_SECOND`; the same frames give the same bytes."""
    path = Path(path)
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # Macroblock trees read uninitialised memory (x264 core 165, pictures this small): bytes differ at each run.
        stream.options = {"preset": "veryfast", "crf": "23", "threads": "1", "x264-params": "mbtree=0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _write_clip(out: Path, seed: int, split: Split, number: int, scene: Scene | None) -> str:
    """Writes one clip unless it exists, and returns its line of the manifest."""
    scene = scene or scene_at(seed, split, number)
    # Captions, negatives and questions each have a random stream of their own.
    words = [np.random.default_rng([seed, SPLITS.index(split), number, 0, stream]) for stream in (1, 2, 3)]
    told = captions_with_phrases(scene, words[0])
    record: dict[str, Any] = {
        "video": f"videos/{split}_{number:06d}.mp4",
        "captions": [caption.text for caption in told],
        "phrases": [phrase for place, caption in enumerate(told) for phrase in _phrases(scene, place, caption)],
        "hard_negatives": hard_negatives(scene, words[1]),
        "questions": questions(scene, words[2]),
        "scene": asdict(scene),
    }
    path = out / record["video"]
    if not path.exists():
        times_seconds = np.arange(round(CLIP_SECONDS * FRAMES_PER_SECOND)) / FRAMES_PER_SECOND
        part = path.with_suffix(".part")
        try:
            write_video(part, render(scene, times_seconds, IMAGE_SIZE))
            part.replace(path)
        except OSError as error:
            message = f"cannot write {path}: {error.strerror}; make room, then run the same command to go on"
            raise DataError(message) from error
    return json.dumps(record) + "\n"


def _phrases(scene: Scene, caption: int, told: Told) -> Iterator[dict[str, Any]]:
    """Yields the phrases of a caption with their times: those of the event, the whole clip for a bystander."""
    for phrase in told.phrases:
        # One noun serves both events of a thing that does one after the other.
        shared = phrase.kind == "noun" and scene.kind == "same"
        events = scene.events if shared else () if phrase.event is None else (scene.events[phrase.event],)
        yield {
            "caption": caption,
            "text": told.text[phrase.start : phrase.end],
            "start": phrase.start,
            "kind": phrase.kind,
            "start_seconds": min((event.start_seconds for event in events), default=0.0),
            "end_seconds": max((event.end_seconds for event in events), default=CLIP_SECONDS),
        }


def _claim(marker: Path, made_with: dict[str, Any]) -> None:
    """Records in the folder how its clips are made, and refuses to mix them with others."""
    if not marker.exists():
        _write_whole(marker, json.dumps(made_with) + "\n")
    elif (found := json.loads(marker.read_text())) != made_with:
        raise DataError(f"{marker.parent} holds clips made with {found}, not {made_with}; choose another folder")


def _write_whole(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def _ignore_interrupts() -> None:
    """Makes a worker ignore Ctrl-C, which the parent handles; workers end with their batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
