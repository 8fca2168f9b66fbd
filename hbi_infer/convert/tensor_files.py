"""Reads files of tensors into NumPy without running any code that they hold."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.convert.pickled_tensors import is_torchscript, read_old, read_torchscript, read_zip
from hbi_infer.errors import BundleError

Array = npt.NDArray[Any]

STARTS = (b"PK", b"\x80")
"""First bytes of files that PyTorch writes: a zip, or before version 1.6 a pickle."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_tensors(path: Path | str) -> dict[str, Array]:
    """Reads tensors of any shape such as (D, D) from a safetensors file, PyTorch checkpoint or TorchScript archive.

    A checkpoint may be wrapped in a mapping ("state_dict", "model"), and its names may begin with "module.". Numbers
    in bfloat16 become float32; all others keep their type.

    Raises:
        BundleError: The file is missing, damaged, of another kind, or a checkpoint that holds code, which is not run.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"there is no file {path}")
    content = _read(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, np.ndarray) for value in content.values()):
        raise BundleError(f"{path} is not a mapping of names to tensors: give a state dict")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise BundleError(f"{path}: {name} has values that are not finite numbers: fetch the file again")
    return tensors


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error}") from error
    # Safetensors begin with 8 bytes for the length of a header in JSON.
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    if not start.startswith(STARTS):
        raise BundleError(
            f"{path} is not a PyTorch file of tensors, or holds more than tensors, and was not run (it begins with "
            f"{start!r}, as no such file does): give a state dict alone, as torch.save(model.state_dict(), FILE) "
            "writes it"
        )
    if is_torchscript(path):
        return read_torchscript(path)
    return read_zip(path) if zipfile.is_zipfile(path) else read_old(path)


def _read_safetensors(path: Path) -> dict[str, Array]:
    import ml_dtypes  # noqa: F401 # NumPy knows the name bfloat16 from then on
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: _narrowest(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 # it is no mapping
    except (SafetensorError, OSError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(f"cannot read {path} as safetensors ({error}): fetch the file again") from error


def _narrowest(tensor: Array) -> Array:
    return tensor.astype(np.float32) if tensor.dtype.name == "bfloat16" else tensor
