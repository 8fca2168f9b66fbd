"""An encoder whose layers multiply whole numbers: weights and what goes into them are rounded to int8.

Quantised are the products with weights that lead up to the tokens of the first level: the towers, and the layers over
frames. What is fragile stays in float32: norms, softmaxes, products of attentions, the weights of tokens, and the
merging, where rounding chooses other centres.

The ranges of what goes into a layer are constants, measured beforehand. Ranges taken anew at each run need no
measuring and are as quick, but then the tokens of a clip depend on what else is in its batch, and on padding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from hbi_engines.half_products import PRODUCTS, products_with_weights
from hbi_export.graphs.modules import Arrays
from hbi_export.graphs.stored_weights import widen_weights
from hbi_training.weights.rounding import ROUNDED_FROM

PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""A mark by which ONNX Runtime's tool knows that a graph needs no preparation; it is taken off again."""


def quantized_graph(content: bytes, first_level: str, batches: Sequence[Arrays]) -> bytes:
    """A float32 encoder -> the same in int8, as ONNX Runtime and OpenVINO run it on processors.

    Weights have a scale for each channel and 7 bits: with 8, processors without VNNI instructions overflow where they
    add two products in 16 bits. What goes into a layer has 8 bits, from its smallest to its largest value in `batches`.

    Args:
        content: The serialised graph.
        first_level: The level whose tokens come before any merging.
        batches: Real inputs.
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
    """Names of the products with large weights that an output depends on."""
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
    """Inputs as ONNX Runtime's tool asks for them."""

    def __init__(self, batches: Sequence[Arrays]) -> None:
        self._rest: Iterator[Arrays] = iter(batches)

    def get_next(self) -> Any:
        """The next batch; None behind the last."""
        return next(self._rest, None)
