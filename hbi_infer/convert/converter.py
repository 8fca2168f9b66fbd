"""The files of a model that others trained become a bundle, with no PyTorch."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import hbi_infer
from hbi_infer.convert.clip import WEIGHT_FILES as TRANSFORMERS_FILES
from hbi_infer.convert.clip import read_clip
from hbi_infer.convert.dual_encoder import DualEncoder
from hbi_infer.convert.onnx_builder import OPSET, BuiltGraph, Stored
from hbi_infer.convert.open_clip import CONFIG, WEIGHT_FILES, check_open_clip, read_open_clip
from hbi_infer.convert.settings import Settings, read_settings
from hbi_infer.convert.siglip import read_siglip
from hbi_infer.convert.towers import LEVELS, clip_graph, frame_graph, num_weights, text_graph
from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import FILE_LIMIT_BYTES, require_bundle_folder, write_bundle
from hbi_infer.model.manifest import BundleManifest, GraphSpec, LevelSpec, Provenance, TokenizerSpec
from hbi_infer.options import FrameSampling

Reader = Callable[[Path, Settings], DualEncoder]
READERS: dict[str, Reader] = {"clip": read_clip, "siglip": read_siglip}
"""Kind of a model, as its config.json says -> its reader."""

Progress = Callable[[str], object]
"""Called with a line about the step that begins."""


def convert_model(
    source: Path | str,
    out: Path | str,
    *,
    name: str,
    origin: str = "",
    revision: str = "",
    sampling: FrameSampling | None = None,
    weights: Stored | None = None,
    merge_tokens: int = 0,
    progress: Progress | None = None,
) -> BundleManifest:
    """Converts a model for zero-shot search.

    Args:
        source: Folder with the model's files, in the layout of `transformers` or of OpenCLIP.
        out: Folder of the bundle.
        name: Name of the model.
        origin: Name of the model where it was fetched.
        revision: Commit of it there.
        sampling: Sampling of frames; how pictures are made, and their size, is the model's own.
        weights: Format in which weights are stored; None for float32, or float16 where a graph would not fit otherwise.
        merge_tokens: Number of patches that each layer of the frame encoder merges away.
        progress: Called with a line about the step that begins.

    Returns:
        The manifest as written.

    Raises:
        BundleError: The model is of another kind, a file is missing or damaged, or the bundle cannot be written.
        InputError: The tokenizer is missing or of another kind.
    """
    source, out = Path(source), Path(out)
    say = progress or (lambda _: None)
    require_bundle_folder(out)
    say(f"reading {source.name}")
    model = read_model(source)
    sampling = model.preprocessing.of(sampling or FrameSampling(), model.vision.size)
    stored = weights or _stored(model)
    say("building the frame encoder")
    graphs = {"frame_encoder": frame_graph(model.vision, stored=stored, merged=merge_tokens)}
    graphs["clip_encoder"] = clip_graph(model.vision.width, sampling.max_frames)
    say("building the text encoder")
    graphs["text_encoder"] = text_graph(model.text, stored=stored)
    provenance = Provenance(
        recipe="none",
        data="none",
        seed=0,
        code_version=hbi_infer.__version__,
        origin=origin or source.name,
        revision=revision,
        merged_tokens=merge_tokens,
    )
    say(f"writing {out.name}")
    manifest = _manifest(model, graphs, sampling, stored, plain_name(name), provenance)
    return write_bundle(out, manifest, {graph: built.content for graph, built in graphs.items()}, model.tokenizer_json)


def check_kind(folder: Path | str) -> None:
    """Checks that a model is of a kind that can be converted, as far as that can be said without its weights.

    Raises:
        BundleError: It is of another kind, or config.json is missing or damaged.
    """
    folder = Path(folder)
    own = read_settings(folder, CONFIG)
    if own is None:
        _reader(folder)
    elif read_settings(folder, "config.json") is None:  # with both, the weights tell which of the two counts
        check_open_clip(Settings(own, str(folder / CONFIG)))


def read_model(folder: Path | str) -> DualEncoder:
    """Reads the files of a model, whatever its layout.

    Raises:
        BundleError: There is no model of a known kind, or a file is missing or damaged.
        InputError: The tokenizer is missing or of another kind.
    """
    folder = Path(folder)
    reader, config = _reader(folder)
    return reader(folder, config)


def _reader(folder: Path) -> tuple[Reader, Settings]:
    """Returns the reader of a model's kind, and its configuration."""
    content = read_settings(folder, "config.json")
    own = read_settings(folder, CONFIG)
    # Some folders hold both layouts; that of `transformers` is read unless only OpenCLIP's weights are there.
    if own is not None and (content is None or _has_only_own(folder)):
        return read_open_clip, Settings(own, str(folder / CONFIG))
    if content is None:
        raise BundleError(
            f"{folder} has no config.json; a model's folder has that or open_clip_config.json, its weights and its "
            "tokenizer: give the folder that transformers or OpenCLIP saved"
        )
    config = Settings(content, str(folder / "config.json"))
    kind = config.raw("model_type")
    if not isinstance(kind, str) or kind not in READERS:
        raise BundleError(
            f"{folder} holds a model of the kind {kind!r:.80}; {' and '.join(READERS)} can be converted, and what "
            "OpenCLIP saves: choose such a model, for example openai/clip-vit-base-patch32"
        )
    return READERS[kind], config


def _has_only_own(folder: Path) -> bool:
    own, others = (any((folder / name).is_file() for name in names) for names in (WEIGHT_FILES, TRANSFORMERS_FILES))
    return own and not others


def plain_name(name: str) -> str:
    """Returns a name without characters that would steer a terminal."""
    return "".join("?" if unicodedata.category(letter).startswith("C") else letter for letter in name)[:200]


def _stored(model: DualEncoder) -> Stored:
    """Returns the format in which the larger tower fits into one file: float32, where that is so, or else float16."""
    count = max(num_weights(model.vision), num_weights(model.text))
    for stored, value_bytes in (("float32", 4), ("float16", 2)):
        if count * value_bytes < FILE_LIMIT_BYTES - 2**24:
            return stored  # type: ignore[return-value]
    raise BundleError(
        f"an encoder of the model has {count:,} weights, and a graph holds at most {FILE_LIMIT_BYTES // 2:,}: choose a "
        "smaller model"
    )


def _manifest(
    model: DualEncoder,
    graphs: Mapping[str, BuiltGraph],
    sampling: FrameSampling,
    stored: Stored,
    name: str,
    provenance: Provenance,
) -> BundleManifest:
    precision = "float32" if stored == "float32" else f"{stored} weights"
    counts = {"frame": sampling.max_frames, "video": 1}
    return BundleManifest(
        name=name,
        notice="",
        width=model.text.width,
        max_words=len(model.text.positions),
        vocabulary_size=len(model.text.embedding),
        sampling=sampling,
        levels=tuple(LevelSpec(level, counts[level], 1, rate) for level, rate in LEVELS.items()),
        padded_partner="ignore",
        logit_scale=model.logit_scale,
        logit_bias=model.logit_bias,
        tasks=("retrieve",),
        tokenizer=TokenizerSpec(),
        graphs={
            graph: GraphSpec(
                file=f"{graph}.onnx", opset=OPSET, precision=precision, inputs=built.inputs, outputs=built.outputs
            )
            for graph, built in graphs.items()
        },
        provenance=provenance,
    )
