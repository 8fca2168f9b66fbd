"""Files that describe a training: neutral sentences of its own world, and which clips are like those it has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from hbi_export.strange_clips import strange_clips
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle, write_bundle
from hbi_infer.model.encoder import BATCH_CLIPS, encode_clips
from hbi_infer.model.familiarity import familiarity_file
from hbi_infer.model.neutral_texts import background_file
from hbi_infer.model.token_model import TokenModel
from hbi_infer.tokens.familiarity import Familiarity, Vectors, clip_vectors
from hbi_infer.video.pool import decode_many
from hbi_infer.video.sampling import spread
from hbi_training.data.formats import load_records
from hbi_training.data.records import VideoRecord

Item = TypeVar("Item")

NUM_TEXTS = 256
NUM_CLIPS = 1600
"""Number of training clips, evenly spread over the data set: a quarter gives the limit."""
NUM_STRANGE = 1200
LEAST_CLIPS = 100
"""Least number of training clips that say which clips are like them."""


def describe_training(bundle: Bundle, data: Path | str, *, data_format: str = "manifest") -> dict[str, bytes]:
    """Makes the files that describe a bundle's training, from the training split of its data set.

    Args:
        bundle: The bundle; its encoders run on the processor.
        data: Folder of the data set.
        data_format: Format of the data set.

    Returns:
        The further files, as `write_bundle` takes them.

    Raises:
        DataError: The data set is not in its format.
        ExportError: There are too few texts or clips.
    """
    records = load_records(data_format, Path(data), "train")
    model = TokenModel(bundle, device="cpu")
    texts = _texts(records)
    familiar = np.concatenate([*_training_vectors(model, records), np.empty((0, bundle.manifest.width), np.float32)])
    if len(texts) < 2 or len(familiar) < LEAST_CLIPS:
        raise ExportError(
            f"{data} has {len(texts)} texts and {len(familiar)} training clips that can be decoded; "
            f"the least are 2 and {LEAST_CLIPS}"
        )
    familiarity = Familiarity.fitted(familiar, np.concatenate(list(_strange_vectors(model))))
    return {
        "background": background_file(texts),
        "familiarity": familiarity_file(familiarity),
    }


def add_training(folder: Path | str, data: Path | str, *, data_format: str = "manifest") -> None:
    """Writes a bundle anew with the files that describe its training; its graphs stay as they are.

    Raises:
        BundleError: There is no bundle, it is a zip, or it cannot be written.
        DataError: The data set is not in its format.
        ExportError: There are too few texts or clips.
    """
    folder = Path(folder)
    bundle = Bundle.load(folder)
    if not folder.is_dir():
        raise ExportError(f"{folder} is no folder: unpack the bundle first")
    others = describe_training(bundle, data, data_format=data_format)
    graphs = {name: bundle.graph_bytes(name) for name in bundle.manifest.graphs}
    write_bundle(folder, bundle.manifest, graphs, bundle.tokenizer_json(), others)


def _texts(records: Sequence[VideoRecord]) -> list[str]:
    """Returns a caption of each of some records, or a question where there is none, all different."""
    found = [record.captions or tuple(asked.question for asked in record.questions) for record in records]
    chosen = [texts[place % len(texts)] for place, texts in enumerate(found) if texts]
    different = list(dict.fromkeys(" ".join(text.split()) for text in chosen))
    return [different[place] for place in spread(len(different), NUM_TEXTS)] if different else []


def _training_vectors(model: TokenModel, records: Sequence[VideoRecord]) -> Iterator[Vectors]:
    """Yields vectors (B, D) of the first clips of some records."""
    some = [records[place] for place in spread(len(records), NUM_CLIPS)] if records else []
    videos = [(record.video, record.stretch) for record in some]
    sampling = model.bundle.manifest.sampling
    first = (video.clips[0] for video in decode_many(videos, sampling) if video.clips)
    for clips in _batches(first):
        for levels in encode_clips(model, clips):
            yield clip_vectors(levels)


def _strange_vectors(model: TokenModel) -> Iterator[Vectors]:
    """Yields vectors (B, D) of clips that are of no training set."""
    for clips in _batches(strange_clips(model.bundle.manifest.sampling, NUM_STRANGE)):
        frames = np.stack(clips)
        yield clip_vectors(model.encode_video(frames, np.ones(frames.shape[:2], np.bool_)))


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, BATCH_CLIPS)):
        yield batch
