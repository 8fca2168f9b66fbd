"""Reading the tensors of a TorchScript archive without running any of its code.

CLIP's original weights are such archives: a zip of code, of tensors, and of a pickle that assigns tensors to attributes
of modules. `torch.jit.load` would run code of the archive, and `torch.load(weights_only=True)` refuses it. Here the
pickle's instructions are followed one by one: those that would import or call something only leave a mark, except the
one that says where a tensor lies.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbi_infer.errors import TrainingError

STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}
_MARK = object()


def is_torchscript(path: Path | str) -> bool:
    """Returns whether a file is a zip with TorchScript's table of constants in it."""
    path = Path(path)
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path | str) -> dict[str, Tensor]:
    """Reads every parameter and buffer of the archive's module, of any shape such as (D, D), by dotted name.

    Raises:
        TrainingError: The archive is damaged or is not laid out as TorchScript writes it.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            reader = _Reader(archive)
            return reader.tensors(reader.module())
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OSError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path} looks like a TorchScript archive and cannot be read as one ({error}): fetch it again, or, if you "
            "trust it, convert it to safetensors"
        ) from error


class _Reader:
    """Reader of one archive, which follows its pickle."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
        self._storages: dict[str, Tensor] = {}

    def module(self) -> Any:
        """Returns the archive's module as a mapping of attributes, some of which are modules."""
        stack: list[Any] = []
        memo: dict[Any, Any] = {}
        for opcode, argument, _ in pickletools.genops(self._read("data.pkl")):
            match opcode.name:
                case "STOP":
                    return stack[-1]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case _:
                    self._step(opcode.name, argument, stack)
        raise ValueError("its pickle has no end")

    def _step(self, name: str, argument: Any, stack: list[Any]) -> None:
        match name:
            case "PROTO":
                pass
            case "MARK":
                stack.append(_MARK)
            case "GLOBAL" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)  # the name of an import stays a name
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[name])
            case "TUPLE":
                stack.append(tuple(_since_mark(stack)))
            case "APPENDS":
                items = _since_mark(stack)
                stack[-1].extend(items)
            case "SETITEMS":
                items = _since_mark(stack)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "NEWOBJ":  # a class and its arguments: a module, empty as yet
                stack[-2:] = [{}]
            case "BUILD":
                state = stack.pop()
                stack[-1].update(state if isinstance(state, dict) else {})
            case "BINPERSID":
                stack.append(self._storage(*stack.pop()))
            case "REDUCE":
                callee, arguments = stack[-2:]
                stack[-2:] = [_view(*arguments[:4]) if callee == "torch._utils _rebuild_tensor_v2" else None]
            case _:
                raise ValueError(f"its pickle has the instruction {name}, which TorchScript does not write")

    def tensors(self, module: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
        """Returns the tensors of a module and of those within it."""
        found = {}
        for name, value in module.items():
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, dict):
                found |= self.tensors(value, f"{prefix}{name}.")
        return found

    def _storage(self, _: str, kind: str, key: str, *__: Any) -> Tensor:
        """Returns the numbers (N,) of a record, which several tensors may share."""
        if key not in self._storages:
            self._storages[key] = torch.frombuffer(
                bytearray(self._read(f"data/{key}")), dtype=STORAGES[kind.removeprefix("torch ")]
            )
        return self._storages[key]

    def _read(self, name: str) -> bytes:
        info = self._archive.getinfo(f"{self._root}/{name}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{info.filename} is compressed, which TorchScript does not do")
        return self._archive.read(info)


def _since_mark(stack: list[Any]) -> list[Any]:
    """Removes the last mark and all above it from the stack, and returns what was above."""
    if _MARK not in stack:
        raise ValueError("its pickle ends a list that it did not begin")
    place = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Returns a tensor's view of its storage; one that reaches beyond it is an error."""
    return storage.as_strided(size, stride, offset)
