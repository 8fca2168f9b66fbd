"""Reads and writes bundle.json, the description of a bundle's model, strictly.

A key that this version does not know is an error, for it may change the meaning of the graphs. A change of the format
that older versions must not read raises `FORMAT_VERSION`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hbi_engines.engine import TensorSpec
from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.graph_names import TASKS, graphs_of_task
from hbi_infer.options import ADDED_LATER, FrameSampling
from hbi_infer.tokens.scoring import Scoring

FORMAT_VERSION = 1
TASK_GRAPHS = {task: graphs_of_task(task) for task in TASKS}
"""Task that this version can do -> the graphs that it needs; a bundle may be able to do more."""


@dataclass(frozen=True)
class LevelSpec:
    """One level of the hierarchy.

    Attributes:
        name: "entity", "action" or "event"; the graphs' outputs are called `<name>_tokens` and `<name>_weights`.
        video_tokens: V, the largest number of tokens of a clip at this level.
        text_tokens: Largest number of tokens of a text at this level.
        rate: Factor of the level's similarity in the score.
    """

    name: str
    video_tokens: int
    text_tokens: int
    rate: float


@dataclass(frozen=True)
class TokenizerSpec:
    """File of the tokenizer; `write_bundle` fills the hash in."""

    file: str = "tokenizer.json"
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """One ONNX graph: its file, inputs and outputs. `write_bundle` fills the hash in.

    `precision` is "float32", perhaps with weights stored smaller ("int8 weights"), or that of its products: "fp16",
    "bf16" (not on device cpu) or "int8".
    """

    file: str
    sha256: str = ""
    opset: int
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Origin of a model.

    Attributes:
        recipe: Recipe of its training.
        data: Data set of its training.
        seed: Seed of its training.
        code_version: Version of this project.
        metrics: Measured metrics in this precision: name -> number, text or a further mapping.
        quantized_from: Hash of the bundle that `hbi-export quantize` made this one of; "" for an exported one.
        calibration: Data that the ranges of an int8 bundle were measured on.
    """

    recipe: str
    data: str
    seed: int
    code_version: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    quantized_from: str = field(default="", metadata=ADDED_LATER)
    calibration: str = field(default="", metadata=ADDED_LATER)


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """Content of bundle.json.

    Attributes:
        name: Name of the model.
        notice: A line that users of the model should read; may be empty.
        width: D, the width of the tokens.
        max_words: Largest number of tokens of a text, start and end of text included.
        vocabulary_size: Number of token ids.
        sampling: Sampling of frames.
        levels: Levels in the order of the encoders' outputs.
        padded_partner: "ignore" leaves padded tokens out of the maxima of the similarity; "zero" counts each as a 0.
        logit_scale: Factor of a score where a softmax over scores is taken.
        tasks: Tasks that the bundle can do, of `TASK_GRAPHS`.
        answers: Answers that the logits of the graph `answerer` stand for, in their order; none without the task "qa".
        tokenizer: File of the tokenizer.
        graphs: Name -> graph.
        provenance: Origin of the model.
    """

    name: str
    notice: str
    width: int
    max_words: int
    vocabulary_size: int
    sampling: FrameSampling
    levels: tuple[LevelSpec, ...]
    padded_partner: Literal["ignore", "zero"]
    logit_scale: float
    tasks: tuple[str, ...]
    answers: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    tokenizer: TokenizerSpec
    graphs: Mapping[str, GraphSpec]
    provenance: Provenance

    def __post_init__(self) -> None:
        for name in ("width", "max_words", "vocabulary_size"):
            if getattr(self, name) < 1:
                raise BundleError(f"{name} is {getattr(self, name)}; it must be at least 1")
        names = [level.name for level in self.levels]
        if not names or len(set(names)) < len(names):
            raise BundleError(f"levels are {names}; there must be at least one, each with a name of its own")
        files = [self.tokenizer.file, *(graph.file for graph in self.graphs.values())]
        for file in files:
            if not file or file.startswith(".") or re.search(r"[/\\:\0]", file):
                raise BundleError(f"the file name {file!r} is not a plain name; files lie beside bundle.json")
        if len(set(files)) < len(files):
            raise BundleError(f"the files are {files}; each graph and the tokenizer need a file of their own")
        for task in self.tasks:
            for graph in TASK_GRAPHS.get(task, ()):
                if graph not in self.graphs:
                    raise BundleError(f"the task {task} needs the graph {graph}; there are only {sorted(self.graphs)}")
        self._check_answers()

    @property
    def scoring(self) -> Scoring:
        """How this bundle compares tokens."""
        return Scoring({level.name: level.rate for level in self.levels}, self.padded_partner)

    def _check_answers(self) -> None:
        if not self.answers and "qa" not in self.tasks:
            return
        outputs = self.graphs["answerer"].outputs if "answerer" in self.graphs else ()
        widths = [output.shape[-1] for output in outputs if output.name == "logits" and output.shape]
        if widths != [len(self.answers)] or len(set(self.answers)) < len(self.answers):
            found = f"gives {widths[0]} logits" if widths else "gives no logits"
            raise BundleError(
                f"there are {len(set(self.answers))} different answers of {len(self.answers)}, and the graph answerer "
                f"{found}; each logit needs an answer of its own"
            )

    def to_json(self) -> bytes:
        """Returns the bytes of bundle.json; equal manifests give equal bytes."""
        return (json.dumps(self.to_document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def to_document(self) -> dict[str, Any]:
        """Returns the content of bundle.json as JSON's types."""
        document = dataclasses.asdict(self)
        for values, kind in (
            (document, BundleManifest),
            (document["sampling"], FrameSampling),
            (document["provenance"], Provenance),
        ):
            for item in dataclasses.fields(kind):
                if "added_later" in item.metadata and values[item.name] == item.default:
                    del values[item.name]
        return {"format_version": FORMAT_VERSION, **document}

    @classmethod
    def from_json(cls, content: bytes) -> BundleManifest:
        """Parses bundle.json.

        Raises:
            BundleError: The content is not JSON, of another format version, or has a key or value that does not
                belong there.
        """
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"not JSON: {error}") from error
        if not isinstance(document, dict) or "format_version" not in document:
            raise BundleError("not a bundle's manifest: it has no format_version")
        version = document.pop("format_version")
        if type(version) is not int or version < 1:
            raise BundleError(f"format_version is {version!r}; it must be {FORMAT_VERSION}")
        if version > FORMAT_VERSION:
            raise BundleError(
                f"its format version is {version} and this hbi-infer reads up to {FORMAT_VERSION}: "
                "pip install --upgrade hbi-infer"
            )
        try:
            return typing.cast("BundleManifest", _parse(cls, document, ""))
        except InputError as error:  # FrameSampling checks its own values
            raise BundleError(f"sampling: {error}") from error


def _parse(kind: Any, value: Any, where: str) -> Any:
    """Converts `value`, from JSON, to the type `kind`; `where` is its place in the document."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(typing.cast("type[Any]", kind), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_parse(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if origin is types.UnionType and type(value) in arguments:
        return value
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is Any or (kind in (int, str) and type(value) is kind):
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise BundleError(f"{where or 'the document'} is {value!r}; it must be {expected}")


def _parse_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    prefix = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise BundleError(f"{where} is {value!r}; it must be an object")
    fields = dataclasses.fields(kind)
    names = [item.name for item in fields]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"the nearest known key is {near[0]}" if near else f"known are {', '.join(names)}"
            raise BundleError(f"unknown key {prefix}{key}; {hint}. A newer hbi-infer may know it")
    if missing := [item.name for item in fields if item.name not in value and "added_later" not in item.metadata]:
        raise BundleError(f"{', '.join(prefix + name for name in missing)} is missing; export the bundle again")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _parse(hints[name], value[name], prefix + name) for name in names if name in value})
