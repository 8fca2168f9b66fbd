"""Looks into the bytes of an ONNX graph before a runtime does, and refuses what reads other files or grows without end.

A graph is checked by its hash, so it must hold all that it computes with. ONNX lets a tensor lie in another file, and
runtimes read that file from wherever the graph says, relative to the folder that the process happens to work in. The
format is Protocol Buffers; the few fields that matter are read here, for the package `onnx` is no dependency.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from hbi_engines.errors import EngineError

MESSAGES = {
    "ModelProto": {7: "GraphProto", 14: "StringStringEntryProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
    "StringStringEntryProto": {},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
}
"""Message -> number of a field -> message in it; those that hold neither tensors nor nodes are left out."""
TEXTS = {
    "NodeProto": {4: "op_type", 7: "domain", 8: "overload"},
    "FunctionProto": {1: "name", 10: "domain", 13: "overload"},
    "TensorProto": {8: "name"},
    "StringStringEntryProto": {1: "key"},
}
"""Message -> number of a field -> name of a text that is looked at."""
DATA_LOCATION = 14
"""Field of a tensor that says where its numbers are; 0 is in the tensor."""

VARINT, FIXED64, BYTES, GROUP, FIXED32 = 0, 1, 2, (3, 4), 5
"""Ways in which a field is written."""
MOST_DEPTH = 100
"""Depth of messages in each other that readers of Protocol Buffers take."""
MOST_NODES = 1_000_000
"""Largest number of nodes after every function is written out; published models have some 10,000."""

_TAGS = {
    kind: {number << 3 | BYTES: name for number, name in (inner | TEXTS.get(kind, {})).items()}
    for kind, inner in MESSAGES.items()
}


@dataclass
class _Calls:
    """Operators of the nodes of a graph or function, those of graphs inside it included."""

    operators: list[bytes] = field(default_factory=list)


class _DamagedError(Exception):
    """The bytes are no message, so that every runtime refuses them, and says why."""


class CheckedGraph(bytes):
    """The bytes of a graph that `check_graph` has let pass; it looks at them once."""


def check_graph(content: bytes) -> CheckedGraph:
    """Refuses a graph that names a file, or whose functions would grow without end when they are written out.

    Returns:
        The same bytes.

    Raises:
        EngineError: The graph is refused; says what is in it. What is no graph at all is left to the runtime.
    """
    if isinstance(content, CheckedGraph):
        return content
    if content[4:8] == b"ORTM":
        raise EngineError("the graph is in ONNX Runtime's own format, not in ONNX: export it again")
    with suppress(_DamagedError):
        _check_model(content)
    return CheckedGraph(content)


def _check_model(content: bytes) -> None:
    graph, functions = _Calls(), dict[bytes, _Calls]()
    waiting = [("ModelProto", 0, len(content), 0, graph)]
    while waiting:
        kind, start, end, depth, calls = waiting.pop()
        if depth > MOST_DEPTH:
            raise EngineError(f"the graph holds more than {MOST_DEPTH} graphs in each other: export it again")
        if kind == "FunctionProto":
            calls = _Calls()
        inner, texts, is_outside = _read(content, kind, start, end)
        waiting += [(child, first, last, depth + 1, calls) for child, first, last in inner]
        if kind == "NodeProto":
            calls.operators.append(_name(texts, "op_type"))
        elif kind == "FunctionProto":
            functions[_name(texts, "name")] = calls
        _refuse_files(kind, texts, is_outside)
    _refuse_endless(graph, functions)


def _read(content: bytes, kind: str, start: int, end: int) -> tuple[list[tuple[str, int, int]], dict[str, bytes], bool]:
    """Reads a message: those in it that matter, its texts, and whether it is a tensor with its numbers elsewhere."""
    tags = _TAGS[kind]
    inner: list[tuple[str, int, int]] = []
    texts: dict[str, bytes] = {}
    is_outside = False
    position = start
    while position < end:
        tag = content[position]  # nearly all numbers take one byte, and a call for each would double the time
        position += 1
        if tag > 127:
            tag, position = _number(content, position - 1, end)
        wire = tag & 7
        if wire == BYTES:
            size = content[position] if position < end else 128
            position += 1
            if size > 127:
                size, position = _number(content, position - 1, end)
            if position + size > end:
                raise _DamagedError
            if (name := tags.get(tag)) is not None:
                if name in MESSAGES:
                    inner.append((name, position, position + size))
                else:
                    texts[name] = content[position : position + size]
            position += size
        elif wire == VARINT:
            value, position = _number(content, position, end)
            is_outside |= kind == "TensorProto" and tag >> 3 == DATA_LOCATION and value != 0
        elif wire in (FIXED32, FIXED64):
            position += 4 if wire == FIXED32 else 8
        elif wire in GROUP:
            raise EngineError("the graph holds groups of fields, which ONNX does not have: export it again")
        else:
            raise _DamagedError
    return inner, texts, is_outside or (kind == "TensorProto" and bool(inner))


def _number(content: bytes, position: int, end: int) -> tuple[int, int]:
    """Reads a number of 7 bits in each byte; returns it and the place behind it."""
    value = shift = 0
    while position < end and shift < 70:
        byte = content[position]
        position += 1
        if byte < 128:
            return (value | byte << shift) & 0xFFFFFFFF, position  # as readers of tags and sizes do
        value |= (byte & 127) << shift
        shift += 7
    raise _DamagedError


def _name(texts: dict[str, bytes], name: str) -> bytes:
    return b"\0".join(texts.get(part, b"") for part in ("domain", name, "overload"))


def _refuse_files(kind: str, texts: dict[str, bytes], is_outside: bool) -> None:
    if is_outside:
        name = texts.get("name", b"")[:80].decode(errors="replace")
        raise EngineError(
            f"the graph keeps its weights {name!r} in another file; a graph must hold all of them, for no other file "
            "is checked or read: export it again without external data"
        )
    if kind == "NodeProto" and texts.get("op_type") == b"EPContext":
        raise EngineError("the graph has a node EPContext, which names another file: export it again without one")
    if kind == "StringStringEntryProto" and texts.get("key") == b"ort_config":
        raise EngineError("the graph holds settings of ONNX Runtime (ort_config): export it again without them")


def _refuse_endless(graph: _Calls, functions: dict[bytes, _Calls]) -> None:
    """Refuses functions that call each other so that they would fill the memory when they are written out."""
    sizes: dict[bytes, int] = {}

    def size(name: bytes, depth: int) -> int:
        if name not in functions:
            return 1
        if name not in sizes:
            if depth == MOST_DEPTH:
                raise EngineError("the graph has functions that call themselves, or a hundred others: export it again")
            sizes[name] = 1 + sum(size(operator, depth + 1) for operator in functions[name].operators)
        return sizes[name]

    total = sum(size(operator, 0) for operator in graph.operators)
    if functions and total > MOST_NODES:
        raise EngineError(
            f"the graph has {total:,} nodes when its functions are written out; the most is {MOST_NODES:,}: export it "
            "again"
        )
