"""Files of tensors, read without running anything that they hold."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hbi_infer.errors import TrainingError

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a safetensors file or of a PyTorch checkpoint.

    A checkpoint may be wrapped in a mapping ("state_dict", "model"), and its names may begin with "module.".

    Raises:
        TrainingError: The file is missing, is neither, or holds code: it is then refused, and the code is not run.
    """
    if not path.is_file():
        raise TrainingError(f"there is no file {path}")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_checkpoint(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"cannot read {path}: {error}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise TrainingError(f"{path} is not a mapping of names to tensors: give a state dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _load_checkpoint(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles, which are read or refused all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # over a file that is no checkpoint, torch stumbles in many ways
        raise TrainingError(
            f"{path} is not a PyTorch file of tensors, or holds more than tensors, and was not run: "
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        ) from error
