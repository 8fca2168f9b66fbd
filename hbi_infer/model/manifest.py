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

import numpy as np

from hbi_engines.engine import TensorSpec
from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.graph_names import GRAPHS, TASKS, clip_graph, missing_graphs
from hbi_infer.model.strict_json import parse_strictly
from hbi_infer.options import ADDED_LATER, MIN_MATCH, FrameSampling
from hbi_infer.tokens.scoring import Scoring
from hbi_infer.tokens.similarity import Directions

FORMAT_VERSION = 1
RANGES = {
    "width": (1, 2**16),
    "max_words": (1, 2**16),
    "vocabulary_size": (1, 10**7),
    "logit_scale": (1e-6, 1e6),
    "logit_bias": (-1e6, 1e6),
    "batch_clips": (1, 1024),
    "min_match": (0.0, 1.0),
    "video_tokens": (1, 2**16),
    "text_tokens": (1, 2**16),
    "rate": (0, 1e6),
    "max_frames": (1, 10_000),
    "image_size": (1, 10_000),
    "resize_to": (1, 10_000),
    "frames_per_second": (1e-3, 1e3),
    "clip_seconds": (0.1, 86_400.0),
}
"""Number -> its least and greatest value: far beyond any model, and no larger than what memory holds."""
CLIP_LIMIT_BYTES = 2**31
DEPTH_LIMIT = 20
CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that no text holds: they would steer a terminal, or cannot be written as UTF-8."""
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
OUTPUT_AXES = {
    "features": 2,
    "tokens": 3,
    "weights": 2,
    "slots": 2,
    "interaction": 3,
    "scores": 2,
    "score": 1,
    "logits": 2,
}
"""Output of a graph, without the name of its level -> number of its axes."""


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


@dataclass(frozen=True)
class FileSpec:
    """A further file of a bundle; `write_bundle` fills the hash in."""

    file: str
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
        origin: Model that a bundle was converted from: its name on the hub, or its folder's; "" for one trained here.
        revision: Commit of that model on the hub; "" for a folder.
        merged_tokens: Number of patches that each layer of the frame encoder merges away.
    """

    recipe: str
    data: str
    seed: int
    code_version: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    quantized_from: str = field(default="", metadata=ADDED_LATER)
    calibration: str = field(default="", metadata=ADDED_LATER)
    origin: str = field(default="", metadata=ADDED_LATER)
    revision: str = field(default="", metadata=ADDED_LATER)
    merged_tokens: int = field(default=0, metadata=ADDED_LATER)


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
        directions: "both" compares each side's tokens with the other's; "text_to_video" looks only for the frame that
            each token of a text is nearest to.
        logit_scale: Factor of a score where a softmax over scores is taken.
        logit_bias: Term that a model of pairs, such as SigLIP, adds to the scaled score before a sigmoid.
        batch_clips: Largest number of clips that are encoded at a time; the memory that it takes rises with them.
        min_match: Least `match` of a result that a person is shown unless asked otherwise; 0 for a model whose right
            results are not more unusual than its wrong ones.
        tasks: Tasks that the bundle can do, of `TASKS`.
        answers: Answers that the logits of the graph `answerer` stand for, in their order; none without the task "qa".
        tokenizer: File of the tokenizer.
        graphs: Name -> graph.
        provenance: Origin of the model.
        background: File with neutral sentences (`hbi_infer.model.neutral_texts`); None for the sentences
            about everyday scenes.
        familiarity: File that tells clips like those of the training from others (`hbi_infer.model.familiarity`); None
            if that is not known.
    """

    name: str
    notice: str
    width: int
    max_words: int
    vocabulary_size: int
    sampling: FrameSampling
    levels: tuple[LevelSpec, ...]
    padded_partner: Literal["ignore", "zero"]
    directions: Directions = field(default="both", metadata=ADDED_LATER)
    logit_scale: float
    logit_bias: float | None = field(default=None, metadata=ADDED_LATER)
    batch_clips: int = field(default=16, metadata=ADDED_LATER)
    min_match: float = field(default=MIN_MATCH, metadata=ADDED_LATER)
    tasks: tuple[str, ...]
    answers: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    tokenizer: TokenizerSpec
    graphs: Mapping[str, GraphSpec]
    provenance: Provenance
    background: FileSpec | None = field(default=None, metadata=ADDED_LATER)
    familiarity: FileSpec | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        self._check_numbers()
        names = [level.name for level in self.levels]
        if not names or len(set(names)) < len(names):
            raise BundleError(f"levels are {names}; there must be at least one, each with a name of its own")
        files = [self.tokenizer.file, *(graph.file for graph in self.graphs.values())]
        files += [spec.file for spec in self.other_files.values()]
        for file in files:
            if file.startswith(".") or re.search(r"[/\\:]", file) or not _is_name(file):
                raise BundleError(f"the file name {file!r:.200} is not a plain name; files lie beside bundle.json")
        if len(set(files)) < len(files):
            raise BundleError(f"the files are {files}; each graph, the tokenizer and the rest need a file of their own")
        for task in self.tasks:
            if task in TASKS and (missing := missing_graphs(task, self.graphs)):
                raise BundleError(f"the task {task} needs the graph {missing[0]}; there are only {sorted(self.graphs)}")
        if self.directions != "both" and (graphs := {"similarity", "interaction"} & self.graphs.keys()):
            raise BundleError(f"the graph {min(graphs)} compares both directions, and directions is {self.directions}")
        self._check_graphs()
        self._check_encoders()
        self._check_answers()

    @property
    def other_files(self) -> dict[str, FileSpec]:
        """Name of the field -> file, of the further files that the bundle has."""
        given = {"background": self.background, "familiarity": self.familiarity}
        return {name: spec for name, spec in given.items() if spec is not None}

    @property
    def scoring(self) -> Scoring:
        """How this bundle compares tokens."""
        return Scoring({level.name: level.rate for level in self.levels}, self.padded_partner, self.directions)

    @property
    def clip_graph(self) -> str:
        """Name of the graph that gives the tokens of clips."""
        return clip_graph(self.graphs)

    def _check_numbers(self) -> None:
        sampling = self.sampling
        parts: list[tuple[str, BundleManifest | FrameSampling | LevelSpec]] = [("", self), ("sampling.", sampling)]
        parts += [(f"levels[{number}].", level) for number, level in enumerate(self.levels)]
        numbers = {
            f"{where}{item.name}": getattr(part, item.name)
            for where, part in parts
            for item in dataclasses.fields(part)
            if item.name in RANGES and getattr(part, item.name) is not None
        }
        for where, value in numbers.items():
            least, most = RANGES[where.rpartition(".")[2]]
            if not least <= value <= most:
                reason = f"at least {least}" if value < least else f"at most {most:,}"
                raise BundleError(f"{where} is {value}; it must be {reason}")
        if self.levels and not any(level.rate for level in self.levels):
            raise BundleError("the rates of all levels are 0; one at least must be greater")
        clip_bytes = 3 * sampling.max_frames * sampling.image_size**2
        token_bytes = 4 * self.width * sum(max(level.video_tokens, level.text_tokens) for level in self.levels)
        for what, size in (("the frames", clip_bytes), ("the tokens", token_bytes)):
            if size > CLIP_LIMIT_BYTES:
                raise BundleError(f"{what} of a clip take {size:,} bytes; the most is {CLIP_LIMIT_BYTES:,}")

    def _check_graphs(self) -> None:
        for name, graph in self.graphs.items():
            tensors = (*graph.inputs, *graph.outputs)
            axes = {size for tensor in tensors for size in tensor.shape if isinstance(size, str) and size}
            for text in (name, *(tensor.name for tensor in tensors), *axes):
                if not _is_name(text):
                    raise BundleError(f"graphs.{name:.80} has the name {text!r:.200}; a name has 1 to 200 letters")
            if not graph.inputs or not 1 <= graph.opset <= 1000:
                raise BundleError(
                    f"graphs.{name} has {len(graph.inputs)} inputs and opset {graph.opset}: export it again"
                )
            for tensor in tensors:
                sizes = [size for size in tensor.shape if isinstance(size, int)]
                if tensor.dtype not in DTYPES or not all(0 < size < 2**31 for size in sizes):
                    raise BundleError(
                        f"graphs.{name} has {str(tensor)!r:.200}; types are {', '.join(DTYPES)}, and sizes at least 1"
                    )
            for output in graph.outputs:
                self._check_output(name, output)

    def _check_encoders(self) -> None:
        """Checks that the graph of clips takes what the graph of frames gives."""
        if not {"frame_encoder", "clip_encoder"} <= self.graphs.keys():
            return
        given, taken = (
            [tensor for tensor in tensors if tensor.name == "features"]
            for tensors in (self.graphs["frame_encoder"].outputs, self.graphs["clip_encoder"].inputs)
        )
        if [(one.dtype, one.shape[-1:]) for one in given] != [(one.dtype, one.shape[-1:]) for one in taken]:
            told = [str(one[0]) if one else "no features" for one in (given, taken)]
            raise BundleError(
                f"the graph frame_encoder gives {told[0]} and clip_encoder takes {told[1]}: they are of two models; "
                "export the bundle again"
            )

    def _check_output(self, graph: str, output: TensorSpec) -> None:
        """Checks the axes of an output that this version knows."""
        level, _, part = output.name.rpartition("_")
        if level not in {each.name for each in self.levels}:
            part = output.name
        last = {"tokens": self.width}
        if graph != "answerer":  # its logits have a check of their own
            last["logits"] = self.vocabulary_size
        num_axes = OUTPUT_AXES.get(part) if graph in GRAPHS else None
        if num_axes is None:
            return
        kinds = "iu" if part == "slots" else "f"
        fits = len(output.shape) == num_axes and np.dtype(output.dtype).kind in kinds
        if not fits or (part in last and output.shape[-1] != last[part]):
            size = f", the last of {last[part]}" if part in last else ""
            raise BundleError(
                f"graphs.{graph} has the output {output}; it must have {num_axes} axes{size}: export it again"
            )

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
            document = parse_strictly(content)
        except ValueError as error:
            raise BundleError(f"not JSON: {error}") from error
        _check_values(document)
        if not isinstance(document, dict) or "format_version" not in document:
            raise BundleError("not a bundle's manifest: it has no format_version")
        version = document.pop("format_version")
        if type(version) is not int or version < 1:
            raise BundleError(f"format_version is {version!r:.80}; it must be {FORMAT_VERSION}")
        if version > FORMAT_VERSION:
            raise BundleError(
                f"its format version is {version} and this hbi-infer reads up to {FORMAT_VERSION}: "
                "pip install --upgrade hbi-infer"
            )
        try:
            return typing.cast("BundleManifest", _parse(cls, document, ""))
        except InputError as error:  # FrameSampling checks its own values
            raise BundleError(f"sampling: {error}") from error


def _check_values(document: Any) -> None:
    """Checks depth, numbers and texts of a JSON document, wherever they stand.

    Raises:
        BundleError: A value is not one that a manifest can have.
    """
    waiting = [(document, "", 0)]
    while waiting:
        value, path, depth = waiting.pop()
        where = f"{path:.120}"
        if depth > DEPTH_LIMIT:
            raise BundleError(f"{where}... is nested deeper than {DEPTH_LIMIT} levels")
        if isinstance(value, str) and _steers(value, where):
            raise BundleError(f"{where} is {value!r:.80}; it must be a text without control characters")
        if type(value) is int and not abs(value) < 2**63:
            raise BundleError(f"{where} is {value!r:.80}...; it must be an int of less than 64 bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise BundleError(f"{where} is {value!r}; it must be float")
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(item, f"{path}.{key}" if path else str(key), depth + 1) for key, item in items]
        if isinstance(value, dict):  # keys come off the list first: later messages show them
            waiting += [(key, f"a key of {where or 'the document'}", depth) for key in value]


def _steers(text: str, where: str) -> bool:
    """Returns whether a text holds control characters, or several lines where messages show it in one."""
    if where.endswith(".file"):  # checked as a name
        return False
    has_lines = bool(re.search(r"[\n\t]", text)) and not where.startswith(("provenance.", "answers."))
    return has_lines or CONTROL.search(text) is not None


def _is_name(text: str) -> bool:
    return text.isprintable() and 1 <= len(text) <= 200


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
    if origin is types.UnionType and dataclasses.is_dataclass(arguments[0]):
        return _parse_dataclass(typing.cast("type[Any]", arguments[0]), value, where)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is Any or (kind in (int, str) and type(value) is kind):
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise BundleError(f"{where or 'the document'} is {value!r:.80}; it must be {expected}")


def _parse_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    prefix = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise BundleError(f"{where} is {value!r:.80}; it must be an object")
    fields = dataclasses.fields(kind)
    names = [item.name for item in fields]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"the nearest known key is {near[0]}" if near else f"known are {', '.join(names)}"
            raise BundleError(f"unknown key {prefix}{key:.80}; {hint}. A newer hbi-infer may know it")
    if missing := [item.name for item in fields if item.name not in value and "added_later" not in item.metadata]:
        raise BundleError(f"{', '.join(prefix + name for name in missing)} is missing; export the bundle again")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _parse(hints[name], value[name], prefix + name) for name in names if name in value})
