"""Quantises an encoder: its layers multiply whole numbers, with weights and activations rounded to int8.

The products with weights that lead up to the tokens of the first level are quantised: the towers, and the layers over
frames. Fragile parts stay in float32: norms, softmaxes, products of attentions, the weights of tokens, and the
merging, where rounding chooses other centres.

The ranges of activations are constants, measured beforehand. Ranges taken anew at each run need no measuring and are as
quick, but then the tokens of a clip depend on the other clips of its batch, and on padding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from hbi_engines.engine import Arrays
from hbi_engines.half_products import PRODUCTS, products_with_weights
from hbi_export.graphs.stored_weights import widen_weights
from hbi_training.weights.rounding import ROUNDED_FROM

PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""Mark that tells ONNX Runtime's tool to prepare nothing; it is taken off again."""


def quantized_graph(content: bytes, first_level: str, batches: Sequence[Arrays]) -> bytes:
    """Quantises a float32 encoder to int8, as ONNX Runtime and OpenVINO run it on processors.

    Weights have a scale for each channel and 7 bits: with 8, processors without VNNI instructions overflow where they
    add two products in 16 bits. Activations have 8 bits, from their smallest to their largest value in `batches`.

    Args:
        content: The serialised graph.
        first_level: Level whose tokens come before any merging.
        batches: Real inputs (B, ...).
    """
    model = onnx.load_from_string(content)
    widen_weights(model)
    layers = _layers(model.graph, f"{first_level}_tokens")
    onnx.helper.set_model_props(model, dict([PREPARED]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            file,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(PRODUCTS),
            nodes_to_quantize=layers,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": sorted(PRODUCTS)},
        )
        model = onnx.load(file)
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _layers(graph: onnx.GraphProto, output: str) -> list[str]:
    """Returns the names of the products with large weights that an output depends on."""
    makers = {name: node for node in graph.node for name in node.output}
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in graph.initializer}
    before, todo = set[str](), [output]
    while todo:
        if (node := makers.get(todo.pop())) is not None and node.name not in before:
            before.add(node.name)
            todo += node.input
    return [
        node.name
        for node in products_with_weights(graph)
        if node.name in before and sizes.get(node.input[1], 0) >= ROUNDED_FROM
    ]


class _Batches(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Hands out inputs as ONNX Runtime's tool asks for them."""

    def __init__(self, batches: Sequence[Arrays]) -> None:
        self._rest: Iterator[Arrays] = iter(batches)

    def get_next(self) -> Any:
        """Returns the next batch; None behind the last."""
        return next(self._rest, None)
