"""Reading files of tensors, by the reader of `hbi_infer.convert`, which runs no code that they hold."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hbi_infer.convert.tensor_files import read_tensors
from hbi_infer.errors import BundleError, TrainingError


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """Reads tensors of any shape such as (D, D) from a safetensors file, PyTorch checkpoint or TorchScript archive.

    A checkpoint may be wrapped in a mapping ("state_dict", "model"), and its names may begin with "module.".

    Raises:
        TrainingError: The file is missing, damaged, of another kind, or a checkpoint that holds code, which is not run.
    """
    try:
        return {name: torch.tensor(array) for name, array in read_tensors(path).items()}
    except BundleError as error:
        raise TrainingError(str(error)) from error
