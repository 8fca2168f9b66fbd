"""Defines nodes of our own in ONNX graphs, each with a function of standard operators beside it.

A graph holds a node such as `hbi::TokenMerge` and, once, a function of that name. A runtime that knows the node has a
kernel for it (`hbi_engines.kernels.definitions`); any other runs the function. PyTorch has an operator of the same
name, so that every module that calls it is exported with the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import onnx.inliner
import onnxscript
from onnx import TensorProto
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset

from hbi_engines.kernels.definitions import Kernel, Kind

DOMAIN, VERSION = "hbi", 1

# onnxscript reads these names: operators by "op", types of arrays by theirs.
op: Any = onnxscript.opset20
if TYPE_CHECKING:
    Floats: TypeAlias = Any
    Bools: TypeAlias = Any
    Integers: TypeAlias = Any
else:
    Floats, Bools, Integers = onnxscript.FLOAT[...], onnxscript.BOOL[...], onnxscript.INT64[...]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
TENSOR_TYPES: dict[Kind, int] = {
    "element": TensorProto.FLOAT,
    "float32": TensorProto.FLOAT,
    "bool": TensorProto.BOOL,
    "int64": TensorProto.INT64,
}
ELEMENT_TYPES = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]


def onnx_function(body: Callable[..., Any]) -> Any:
    """Converts a Python function to one of ONNX."""
    return onnxscript.script(Opset(DOMAIN, VERSION), op)(body)


def function_of(kernel: Kernel, meaning: Any, parts: Sequence[Any] = ()) -> onnx.FunctionProto:
    """Makes the function of a node, in standard operators alone.

    Args:
        kernel: Kernel of the node.
        meaning: Result of `onnx_function`, with the kernel's names of inputs and outputs.
        parts: Functions that `meaning` calls.
    """
    functions = [part.to_function_proto() for part in (meaning, *parts)]
    names = [function.name for function in functions[1:]]
    functions[0].name = kernel.node
    node = onnx.helper.make_node(kernel.node, functions[0].input, functions[0].output, domain=DOMAIN)
    given, made = (
        [
            onnx.helper.make_tensor_value_info(name, TENSOR_TYPES[kind], None)
            for name, kind in zip(names_here, kinds.values(), strict=True)
        ]
        for names_here, kinds in ((node.input, kernel.inputs), (node.output, kernel.outputs))
    )
    graph = onnx.helper.make_graph([node], "graph", given, made)
    opsets = [onnx.helper.make_opsetid("", op.version), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    model = onnx.helper.make_model(graph, functions=functions, opset_imports=opsets)
    # Some runtimes do not follow a function into another one.
    flat = onnx.inliner.inline_selected_functions(model, [(DOMAIN, name) for name in names]) if names else model
    (function,) = flat.functions
    copy = onnx.FunctionProto()
    copy.CopyFrom(function)
    return copy


def translation_of(kernel: Kernel) -> Callable[..., Any]:
    """Makes the translation of an operator into its node, which `torch.onnx.export` calls."""
    types = {kind: "T" if kind == "element" else f"tensor({kind.removesuffix('32')})" for kind in TENSOR_TYPES}
    schema = OpSchema(
        kernel.node,
        DOMAIN,
        VERSION,
        inputs=[OpSchema.FormalParameter(name, types[kind]) for name, kind in kernel.inputs.items()],
        outputs=[OpSchema.FormalParameter(name, types[kind]) for name, kind in kernel.outputs.items()],
        type_constraints=[("T", ELEMENT_TYPES, "")],
        attributes=[
            OpSchema.Attribute(name, onnx.helper.make_attribute(name, value), "")
            for name, value in kernel.attributes.items()
        ],
    )
    node = Op(Opset(DOMAIN, VERSION), kernel.node, schema)

    def translate(*given: Any, **attributes: Any) -> Any:
        # Arguments may come by position; a schema's attributes have no order.
        inputs, values = given[: len(kernel.inputs)], given[len(kernel.inputs) :]
        return node(*inputs, **dict(zip(kernel.attributes, values, strict=False)), **attributes)

    return translate
