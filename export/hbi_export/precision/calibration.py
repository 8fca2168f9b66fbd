"""Real clips and texts to measure the ranges of an int8 graph on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hbi_engines.engine import Arrays
from hbi_export.graphs.sample_inputs import decoded_clips
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.video.discovery import find_videos
from hbi_infer.video.sampling import Stretch, spread
from hbi_training.data.formats import load_records

NUM_VIDEOS = 64
"""Number of videos, evenly spread over the folder."""
ITEMS_AT_ONCE = 8
Item = TypeVar("Item")


@dataclass(frozen=True)
class Calibration:
    """Real inputs of the encoders.

    Attributes:
        clips: Batches (B, ...) for the video encoder.
        texts: Batches (B, ...) for the text encoder; none if the folder has no texts.
        source: Origin of both, in words.
    """

    clips: Sequence[Arrays]
    texts: Sequence[Arrays]
    source: str


def read_calibration(folder: Path | str, bundle: Bundle, *, data_format: str = "manifest") -> Calibration:
    """Reads the first clips of some videos of a folder; of a data set, those of its training split, with their texts.

    Args:
        folder: Folder of videos, or of a data set.
        bundle: Bundle whose sampling and tokenizer apply.
        data_format: Format of the data set.

    Raises:
        ExportError: No video can be decoded.
        DataError: The data set is not in its format.
    """
    folder = Path(folder)
    videos: Sequence[Path | tuple[Path, Stretch]]
    if data_format != "manifest" or (folder / "train.jsonl").is_file():
        records = _some(load_records(data_format, folder, "train"))
        videos = [(record.video, record.stretch) if record.stretch != Stretch() else record.video for record in records]
        texts = [text for record in records for text in record.captions]
        texts += [asked.question for record in records for asked in record.questions]
    else:
        videos, texts = _some(find_videos(folder)), []
    clips = decoded_clips(videos, bundle.manifest.sampling, NUM_VIDEOS)
    if clips is None:
        raise ExportError(
            f"{folder} holds no video that can be decoded; --calibrate takes a folder of videos, or of a data set"
        )
    found = f"{len(clips['frames'])} clips" + (f" and {len(texts)} texts" if texts else "")
    inputs: Arrays = {}
    if texts:
        batch = Tokenizer.from_json(bundle.tokenizer_json()).encode(texts, bundle.manifest.max_words)
        inputs = {"token_ids": batch.ids, "token_mask": batch.mask}
    return Calibration(_batches(clips), _batches(inputs), f"{found} of {folder.name}")


def _some(items: Sequence[Item]) -> list[Item]:
    return [items[place] for place in spread(len(items), NUM_VIDEOS)] if items else []


def _batches(inputs: Arrays) -> list[Arrays]:
    num_items = len(next(iter(inputs.values()), ()))
    return [
        {name: array[start : start + ITEMS_AT_ONCE] for name, array in inputs.items()}
        for start in range(0, num_items, ITEMS_AT_ONCE)
    ]
