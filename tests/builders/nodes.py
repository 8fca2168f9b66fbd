"""Graphs of one of our own nodes alone."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from hbi_engines.engine import Engine
from hbi_engines.kernels.definitions import BANZHAF_INTERACTION, Element, Kernel
from hbi_export.graphs.custom_ops import add_functions
from hbi_export.graphs.modules import OPSET
from hbi_export.graphs.onnx_functions import DOMAIN, TENSOR_TYPES
from tests.builders.kernel_games import (
    Arrays,
)

DEVICES = [device for device in ("cpu", "openvino") if device == "cpu" or importlib.util.find_spec("openvino")]


AXES = {
    "similarity": ("B", "T", "V"),
    "text_mask": ("B", "T"),
    "video_mask": ("B", "V"),
    "tokens": ("B", "N", "D"),
    "score": ("B", "N"),
    "mask": ("B", "N"),
    "text_tokens": ("A", "T", "D"),
    "text_weights": ("A", "T"),
    "video_tokens": ("B", "V", "D"),
    "video_weights": ("B", "V"),
}


MERGING: dict[str, Any] = {"num_slots": 4, "ratio": 0.34, "neighbours": 3}


def node_model(kernel: Kernel, element: Element = "float32", **attributes: int | float) -> bytes:
    """A graph of a node alone, of any sizes."""
    float_type = TensorProto.FLOAT16 if element == "float16" else TensorProto.FLOAT
    types = {**TENSOR_TYPES, "element": float_type}
    node = helper.make_node(kernel.node, list(kernel.inputs), list(kernel.outputs), domain=DOMAIN, **attributes)
    axes = {**AXES, "text_weights": ("B", "T")} if kernel is BANZHAF_INTERACTION else AXES
    inputs = [helper.make_tensor_value_info(name, types[kind], axes[name]) for name, kind in kernel.inputs.items()]
    shapes = kernel.output_shapes([axes[name] for name in kernel.inputs], attributes)
    outputs = [
        helper.make_tensor_value_info(name, types[kind], shape)
        for (name, kind), shape in zip(kernel.outputs.items(), shapes, strict=True)
    ]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(helper.make_graph([node], "graph", inputs, outputs), opset_imports=opsets, ir_version=10)
    add_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run(engine: Engine, kernel: Kernel, inputs: Arrays) -> Arrays:
    """The outputs in the kernel's order and types."""
    found = engine.run({name: inputs[name] for name in kernel.inputs})
    return {
        name: found[name].astype(kind) if kind != "element" else found[name].astype(np.float32)
        for name, kind in kernel.outputs.items()
    }
