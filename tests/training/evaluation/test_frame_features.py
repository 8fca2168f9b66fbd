"""Features of a frozen frame encoder: the encoder's own, kept beside the frames, and anew for other weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from hbi_training.data.frame_cache import FrameCache, Split
from hbi_training.evaluation.frame_features import frame_features
from hbi_training.model.clip_encoders import FrameEncoder, build_clip
from tests.builders.tiny_training import CLIP


def test_features_are_computed_once_for_the_same_weights(splits: tuple[Split, Split], tmp_path: Path) -> None:
    known = splits[1].cache
    shutil.copytree(known.folder.parent, tmp_path / "frames")
    cache = FrameCache(tmp_path / "frames", splits[1].records, known.sampling)
    torch.manual_seed(0)
    encoder = FrameEncoder(build_clip(CLIP))
    told: list[int] = []
    features = frame_features(encoder, cache, batch_size=3, advance=told.append)
    assert told == [3, 3, 2]
    frames = torch.from_numpy(cache[np.arange(8)][0])
    with torch.no_grad():
        expected = encoder(encoder.normalise(frames[5]))
    assert torch.allclose(features[5], expected, atol=1e-5)

    again = frame_features(encoder, cache, batch_size=3, advance=told.append)
    assert torch.equal(again, features)
    assert told == [3, 3, 2]
    with torch.no_grad():
        encoder.projection.weight.mul_(2)
    assert torch.allclose(frame_features(encoder, cache, advance=told.append), 2 * features, atol=1e-5)
    assert told == [3, 3, 2, 8]
    assert len(list(cache.folder.glob("features_*.npy"))) == 2
    assert not list(cache.folder.glob("*.partial"))
