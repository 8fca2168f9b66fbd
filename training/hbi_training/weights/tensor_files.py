"""Reading files of tensors without running any code that they hold."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hbi_infer.errors import TrainingError
from hbi_training.weights.torchscript_archive import is_torchscript, read_torchscript

STARTS = (b"PK", b"\x80")
"""First bytes of files that PyTorch writes: a zip, or before version 1.6 a pickle."""

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """Reads tensors of any shape such as (D, D) from a safetensors file, PyTorch checkpoint or TorchScript archive.

    A checkpoint may be wrapped in a mapping ("state_dict", "model"), and its names may begin with "module.".

    Raises:
        TrainingError: The file is missing, damaged, of another kind, or a checkpoint that holds code, which is not run.
    """
    path = Path(path)
    if not path.is_file():
        raise TrainingError(f"there is no file {path}")
    try:
        content = _read(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"cannot read {path}: {error}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise TrainingError(f"{path} is not a mapping of names to tensors: give a state dict")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise TrainingError(f"{path}: {name} has values that are not finite numbers: fetch the file again")
    return tensors


def _read(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(9)
    # Safetensors begin with 8 bytes for the length of a header in JSON.
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return load_file(path)
    return read_torchscript(path) if is_torchscript(path) else _load_checkpoint(path)


def _load_checkpoint(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles, which it then reads or refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises errors of many types for a file that is no checkpoint
        with path.open("rb") as file:
            start = file.read(16)
        reason = _why_refused(error) if start.startswith(STARTS) else f"it begins with {start!r}, as no such file does"
        raise TrainingError(
            f"{path} is not a PyTorch file of tensors, or holds more than tensors, and was not run ({reason}): give a "
            "state dict alone, as torch.save(model.state_dict(), FILE) writes it"
        ) from error


def _why_refused(error: Exception) -> str:
    """Returns torch's reason for refusing a file, without its advice to run the code in it."""
    text = str(error)
    if wanted := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it asks for {wanted[1]}"
    if detail := re.search(r"WeightsUnpickler error:\s*(.+)", text):
        return f"it is a pickle of other things: {detail[1]}"
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"
