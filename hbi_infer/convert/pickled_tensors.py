"""Reads the tensors of PyTorch's own files without running any of the code that a pickle can hold.

Such a file is a pickle that says where tensors lie, and their numbers. The pickle's instructions are followed one by
one here. What they would import stays a name, and of calls only those few are made that build a tensor or a plain
mapping. In a checkpoint any other call is an error; the modules of a TorchScript archive hold many, which only leave a
mark.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import BundleError

Array = npt.NDArray[Any]

DTYPES = {
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "CharStorage": "i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "BoolStorage": "?",
    "ByteStorage": "u1",
}
"""PyTorch's name of a storage -> type of its numbers."""
PLAIN_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": dict,
    "collections Counter": dict,
    "torch Size": tuple,
    "torch device": lambda *parts: parts,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch.nn.parameter Parameter": lambda tensor, *_: tensor,
}
"""Import -> what is done in its place."""
PICKLE_LIMIT_BYTES = 2**26
MOST_TENSORS = 1_000_000
OLD_MAGIC = 0x1950A86A20F9469CFC6C
DAMAGED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, zipfile.BadZipFile)
"""Errors that following a damaged pickle, or one made to do harm, may raise."""
_MARK = object()

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_NUMBERS = ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
_TEXTS = (
    "GLOBAL",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
)
_BYTES = ("SHORT_BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
_ARGUMENTS = frozenset((*_NUMBERS, *_TEXTS, *_BYTES))
"""Instructions that push the value that stands behind them; an import stays its name."""
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GET, _PUT = ("GET", "BINGET", "LONG_BINGET"), ("PUT", "BINPUT", "LONG_BINPUT")


class _RefusedError(Exception):
    """A pickle asks for an import that is not made."""


def read_zip(path: Path | str) -> Any:
    """Reads what `torch.save` wrote: a mapping of names to tensors of any shape such as (D, D), or something else.

    Raises:
        BundleError: The file is damaged, or holds more than tensors, which is not run.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _load(archive.read(_pickle_of(archive)), _Records(archive).storage, is_strict=True)
    except (_RefusedError, *DAMAGED) as error:
        raise _refused(path, error) from error


def read_old(path: Path | str) -> Any:
    """Reads the same of a file that PyTorch wrote before version 1.6: pickles, with the numbers behind them.

    Raises:
        BundleError: The file is damaged, or holds more than tensors, which is not run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _OldFile(content).load()
    except (_RefusedError, *DAMAGED) as error:
        raise _refused(path, error) from error


def is_torchscript(path: Path | str) -> bool:
    """Returns whether a file is a zip with TorchScript's table of constants in it."""
    path = Path(path)
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def read_torchscript(path: Path | str) -> dict[str, Array]:
    """Reads every parameter and buffer of a TorchScript archive, of any shape such as (D, D), by dotted name.

    CLIP's original weights are such archives: a zip of code, of tensors, and of a pickle that assigns tensors to
    attributes of modules. None of the code is run.

    Raises:
        BundleError: The archive is damaged or is not laid out as TorchScript writes it.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            module = _load(archive.read(_pickle_of(archive)), _Records(archive).storage, is_strict=False)
            return dict(_tensors(_mapping(module)))
    except DAMAGED as error:
        raise BundleError(
            f"{path} looks like a TorchScript archive and cannot be read as one ({error}): fetch it again, or, if you "
            "trust it, convert it to safetensors"
        ) from error


def _refused(path: Path, error: Exception) -> BundleError:
    reason = str(error) if isinstance(error, _RefusedError) else f"it is damaged, or a pickle of other things: {error}"
    return BundleError(
        f"{path} is not a PyTorch file of tensors, or holds more than tensors, and was not run ({reason}): give a "
        "state dict alone, as torch.save(model.state_dict(), FILE) writes it"
    )


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} where a mapping of names belongs")
    return content


def _tensors(module: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    """Yields the tensors of a module and of those within it."""
    waiting: list[tuple[str, Any]] = [("", module)]
    for _ in range(MOST_TENSORS):
        if not waiting:
            return
        name, value = waiting.pop()
        if isinstance(value, np.ndarray):
            yield name, value
        elif isinstance(value, dict):
            prefix = f"{name}." if name else ""
            waiting += [(f"{prefix}{key}", part) for key, part in reversed(value.items())]
    raise ValueError(f"it has more than {MOST_TENSORS:,} modules and tensors")


def _pickle_of(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Returns the pickle of an archive, which must not claim a size that only a bomb has."""
    for info in archive.infolist():
        if info.filename.count("/") == 1 and info.filename.endswith("/data.pkl"):
            return _stored(info, PICKLE_LIMIT_BYTES)
    raise ValueError("the archive has no data.pkl")


def _stored(info: zipfile.ZipInfo, limit_bytes: int) -> zipfile.ZipInfo:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed, which TorchScript does not do")
    if info.file_size > limit_bytes:
        raise ValueError(f"{info.filename} claims {info.file_size:,} bytes")
    return info


class _Records:
    """Storages of an archive, each read once, and no more bytes in all than the archive has."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._root = _pickle_of(archive).filename.rpartition("/")[0]
        self._left_bytes = sum(info.compress_size for info in archive.infolist())
        self._storages: dict[str, Array] = {}
        if self._member("byteorder") in archive.namelist():
            order = archive.read(_stored(archive.getinfo(self._member("byteorder")), 100))
            if order != b"little":
                raise ValueError(f"its numbers are in {order[:20]!r} order; only little is supported")

    def storage(self, _: str, kind: str, key: str, *__: Any) -> Array:
        """Returns the numbers (N,) of a record, which several tensors may share."""
        if key not in self._storages:
            info = _stored(self._archive.getinfo(self._member(f"data/{key}")), self._left_bytes)
            self._left_bytes -= info.file_size
            self._storages[key] = _numbers(self._archive.read(info), kind)
        return self._storages[key]

    def _member(self, name: str) -> str:
        return f"{self._root}/{name}"


class _OldFile:
    """A file of several pickles, then each storage with its length before it."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._kinds: dict[str, tuple[str, int]] = {}
        self._storages: dict[str, list[Array]] = {}

    def load(self) -> Any:
        """Follows the pickles. Storages come last, so that the tensors are found in a second pass over theirs."""
        if _follow(self._content, self._no_storage, is_strict=True) != OLD_MAGIC:
            raise ValueError("it does not begin as PyTorch's files do")
        for _ in ("version of the protocol", "system"):
            _follow(self._content, self._no_storage, is_strict=True)
        start = self._content.tell()
        _follow(self._content, self._remember, is_strict=True)
        keys = _follow(self._content, self._no_storage, is_strict=True)
        storages = {key: self._next_storage(*self._kinds[key]) for key in keys}
        self._content.seek(start)
        return _follow(self._content, lambda _, __, key, *___: storages[key], is_strict=True)

    def _no_storage(self, *_: Any) -> Array:
        raise ValueError("it names a storage where none belongs")

    def _remember(self, _: str, kind: str, key: str, __: str, count: int, view: Any = None) -> Array:
        if view is not None:
            raise ValueError("it has storages that are parts of others, as PyTorch before 0.4 wrote them")
        self._kinds[key] = kind, count
        return np.lib.stride_tricks.as_strided(np.zeros(1, _dtype(kind)), (count,), (0,))

    def _next_storage(self, kind: str, count: int) -> Array:
        length = int.from_bytes(self._content.read(8), "little")
        size_bytes = _dtype(kind).itemsize * length
        content = self._content.read(size_bytes) if length == count and size_bytes <= len(self._content) else b""
        if len(content) != size_bytes:
            raise ValueError("it ends before its numbers do")
        return _numbers(content, kind)


def _dtype(kind: str) -> np.dtype[Any]:
    name = kind.removeprefix("torch ")
    if name not in DTYPES:
        raise ValueError(f"it has numbers of the kind {name!r:.80}; known are {', '.join(DTYPES)}")
    return np.dtype(DTYPES[name])


def _numbers(content: bytes, kind: str) -> Array:
    """Returns numbers (N,); those in bfloat16, which NumPy does not have, become float32."""
    numbers = np.frombuffer(content, _dtype(kind))
    if kind.endswith("BFloat16Storage"):
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


def _view(storage: Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Array:
    """Returns a tensor's view of its storage; one that reaches beyond it, or repeats it, is an error."""
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"it has a tensor of size {size!r:.80} with strides {stride!r:.80} at {offset!r:.80}")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and (last >= len(storage) or count > len(storage)):
        raise ValueError(f"it has a tensor of size {size} that reaches beyond its {len(storage)} numbers")
    strides = tuple(step * storage.itemsize for step in stride)
    part = storage[offset:] if count else storage[:0]
    return np.lib.stride_tricks.as_strided(part, size, strides, writeable=False)


def _load(content: bytes, storage: Callable[..., Array], *, is_strict: bool) -> Any:
    return _follow(BytesIO(content), storage, is_strict=is_strict)


def _follow(stream: Any, storage: Callable[..., Array], *, is_strict: bool) -> Any:
    """Follows one pickle to its end and returns what it built.

    Args:
        stream: The bytes, of which no more are read than belong to the pickle.
        storage: Returns the numbers (N,) that a persistent name stands for.
        is_strict: Whether a call that is not known is an error; otherwise None stands in its place.
    """
    machine = _Machine(storage, is_strict=is_strict)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return machine.stack[-1]
        machine.step(opcode.name, argument)
    raise ValueError("its pickle has no end")


class _Machine:
    """Stack and memory of a pickle."""

    def __init__(self, storage: Callable[..., Array], *, is_strict: bool) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storage, self._is_strict = storage, is_strict

    def step(self, name: str, argument: Any) -> None:
        """Follows one instruction."""
        stack = self.stack
        if name in _ARGUMENTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _PUT:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _GET:
            stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self._build(name, stack)

    def _build(self, name: str, stack: list[Any]) -> None:
        match name:
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = _TUPLES[name]
                stack[-count:] = [tuple(stack[-count:])]
            case "LIST":
                stack.append(self._since_mark())
            case "DICT":
                items = self._since_mark()
                stack.append(dict(zip(items[::2], items[1::2], strict=True)))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS" | "ADDITEMS":
                items = self._since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                key, value = stack[-2:]
                del stack[-2:]
                stack[-1][key] = value
            case "SETITEMS":
                items = self._since_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case _:
                self._call(name, stack)

    def _call(self, name: str, stack: list[Any]) -> None:
        match name:
            case "STACK_GLOBAL":
                stack[-2:] = [f"{stack[-2]} {stack[-1]}"]
            case "NEWOBJ":  # a class and its arguments: a module, empty as yet
                if self._is_strict:
                    stack[-2:] = [self._called(*stack[-2:])]
                else:
                    stack[-2:] = [{}]
            case "BUILD":
                state = stack.pop()
                if not self._is_strict:
                    stack[-1].update(state if isinstance(state, dict) else {})
            case "BINPERSID":
                stack.append(self._storage(*stack.pop()))
            case "REDUCE":
                stack[-2:] = [self._called(*stack[-2:])]
            case _:
                raise ValueError(f"its pickle has the instruction {name}, which no file of tensors has")

    def _called(self, callee: Any, arguments: tuple[Any, ...]) -> Any:
        if callee == "torch._utils _rebuild_tensor_v2":
            return _view(*arguments[:4])
        if not self._is_strict:
            return None
        if callee not in PLAIN_CALLS:
            raise _RefusedError(f"it asks for {str(callee).replace(' ', '.', 1):.80}")
        return PLAIN_CALLS[callee](*arguments)

    def _since_mark(self) -> list[Any]:
        """Removes the last mark and all above it from the stack, and returns what was above."""
        stack = self.stack
        for place in range(len(stack) - 1, -1, -1):
            if stack[place] is _MARK:
                items = stack[place + 1 :]
                del stack[place:]
                return items
        raise ValueError("its pickle ends a list that it did not begin")
