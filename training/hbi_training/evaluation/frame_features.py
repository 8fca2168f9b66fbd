"""Features of all frames of a data set by a frame encoder that is not trained, computed once and kept beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from hbi_training.data.frame_cache import FrameCache
from hbi_training.model.clip_encoders import FrameEncoder


@torch.no_grad()
def frame_features(
    encoder: FrameEncoder,
    cache: FrameCache,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Returns the features (N, F, D) float32 of the frames of every clip that could be decoded, on the CPU.

    They lie in the folder of the cache, in a file whose name tells the encoder's weights.

    Args:
        encoder: Frame encoder on any device.
        cache: Frames of the clips, in whose order the features are.
        batch_size: Clips at a time.
        advance: Callback for the number of clips that have just been encoded.
    """
    rows = cache.decoded
    digest = hashlib.sha256(rows.tobytes())
    for tensor in encoder.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    path = cache.folder / f"features_{digest.hexdigest()[:16]}.npy"
    if path.exists():
        return torch.from_numpy(np.load(path, allow_pickle=False))
    device = encoder.pixel_scale.device
    parts = []
    for start in range(0, len(rows), batch_size):
        frames, mask = cache[rows[start : start + batch_size]]
        pixels = encoder.normalise(torch.from_numpy(frames).to(device).flatten(0, 1))
        parts.append(encoder(pixels).unflatten(0, mask.shape).float().cpu())
        advance(len(frames))
    features = torch.cat(parts)
    # Another name until it is complete, and one of its own for each process that computes them.
    partial = path.with_suffix(f".{uuid4().hex}.partial")
    with partial.open("wb") as file:
        np.save(file, features.numpy(), allow_pickle=False)
    partial.replace(path)
    return features
