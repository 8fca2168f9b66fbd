"""A small network that estimates the Banzhaf interaction from a map of similarities (CVPR 2023, section 3.3, figure 3).

Nothing needs it, for the exact interaction costs little (`hbi_training.banzhaf.exact`); it is here to read the authors'
checkpoints and to repeat their ablation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hbi_infer.errors import TrainingError
from hbi_training.weights.tensor_files import load_tensors

_RELEASED = {
    "cnn1.weight": "first.weight",
    "cnn1.bias": "first.bias",
    "cnn2.weight": "last.weight",
    "cnn2.bias": "last.bias",
    "Q": "query",
    "K": "key",
    "V": "value",
}
_UNUSED = "bn."  # normalisation that the released network declares and never applies


class BanzhafEstimator(nn.Module):
    """Convolution, one attention over all pairs of tokens, convolution; for maps of any size.

    Args:
        channels: Channels of the hidden layer; the released checkpoints have 64.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.query, self.key, self.value = (nn.Parameter(torch.empty(channels, channels)) for _ in range(3))
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        for matrix in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(matrix, gain=1.414)

    def forward(self, similarity: Tensor, mask: Tensor | None = None) -> Tensor:
        """Estimates interactions (B, T, V), 0 at padding.

        Args:
            similarity: Cosines (B, T, V); those at padding are read as 0.
            mask: True at pairs of real tokens, (B, T, V) bool; None without padding.
        """
        if mask is not None:
            similarity = similarity * mask
        hidden = self.first(similarity[:, None]).relu()
        # (B, C, T, V) -> (B, T * V, C)
        pairs = hidden.flatten(2).mT
        attention = ((pairs @ self.query) @ (pairs @ self.key).mT).softmax(-1)
        pairs = pairs + attention @ (pairs @ self.value)
        # (B, T * V, C) -> (B, C, T, V)
        estimate: Tensor = self.last(pairs.mT.unflatten(2, similarity.shape[1:])).squeeze(1)
        return estimate if mask is None else estimate * mask


def save_estimator(estimator: BanzhafEstimator, path: Path | str) -> None:
    """Writes the network's tensors as safetensors."""
    path = Path(path)
    save_file({name: tensor.contiguous() for name, tensor in estimator.state_dict().items()}, path)


def load_estimator(path: Path | str) -> BanzhafEstimator:
    """Reads a file of `save_estimator`, or the authors' file (a pickle of tensors only, whose code is never run).

    Raises:
        TrainingError: The file cannot be read safely, or holds another network.
    """
    path = Path(path)
    state = from_released(load_tensors(path))
    if "first.weight" not in state:
        raise TrainingError(f"{path} holds no Banzhaf estimator; it has the tensors {', '.join(sorted(state)[:6])}")
    estimator = BanzhafEstimator(len(state["first.weight"]))
    try:
        estimator.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path} holds no Banzhaf estimator: {reason}") from error
    return estimator.eval()


def from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames released tensors, of any shape such as (C, C), to our names; names that are ours already stay."""
    return {
        _RELEASED.get(name, name): tensor.float() for name, tensor in tensors.items() if not name.startswith(_UNUSED)
    }
