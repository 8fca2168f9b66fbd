"""Encoders in int8: which layers are, and that neither batch nor padding matters."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from hbi_engines.half_products import halve_products
from hbi_export.options import CheckData
from hbi_export.precision.compared_model import compared_bundle
from hbi_export.precision.gate import load_clips
from hbi_infer import HBI
from hbi_infer.model.bundle import Bundle


def test_layers_are_in_int8_and_what_is_fragile_is_not(int8: Bundle) -> None:
    for name in ("video_encoder", "text_encoder"):
        graph = onnx.load_from_string(int8.graph_bytes(name)).graph
        makers = {output: node for node in graph.node for output in node.output}
        whole = {
            node.output[0]
            for node in graph.node
            if node.op_type in ("MatMul", "Gemm", "Conv")
            and all(makers[part].op_type == "DequantizeLinear" for part in node.input[:2] if part in makers)
            and node.input[1] in makers
        }
        products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
        assert 10 <= len(whole) < len(products)
        dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
        readers = {node.op_type for node in graph.node if dequantized & set(node.input)}
        assert readers <= {"MatMul", "Gemm", "Conv"}
        # All behind the tokens of the first level stays.
        behind, found = {"entity_tokens"}, False
        for node in graph.node:
            if behind & set(node.input):
                behind.update(node.output)
                assert node.output[0] not in whole
                found = True
        assert found


def test_a_clip_in_int8_does_not_depend_on_its_batch(data: CheckData, int8: Bundle) -> None:
    hbi = HBI(int8, device="cpu")
    clips = load_clips(data, compared_bundle(int8, "cpu"))
    frames, mask = clips.cache[np.arange(4)]
    together, alone = hbi.encode_video(frames, mask), hbi.encode_video(frames[:1], mask[:1])
    texts = ["a small red circle moves left", "a ring blinks, and then a big blue square and a star spin"]
    long, short = hbi.encode_text(texts), hbi.encode_text(texts[:1])
    length = short["entity"].tokens.shape[1]
    for one, other in (
        (alone["entity"].tokens, together["entity"].tokens[:1]),
        (short["entity"].tokens, long["entity"].tokens[:1, :length]),
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


def test_quantised_products_are_not_halved(int8: Bundle) -> None:
    model = onnx.load_from_string(int8.graph_bytes("text_encoder"))
    readers = {name: node for node in model.graph.node if node.op_type == "MatMul" for name in node.input}
    before = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"} & readers.keys()
    halve_products(model.graph, "bf16")
    after = {name for node in model.graph.node if node.op_type == "MatMul" for name in node.input}
    assert before
    assert before <= after
    assert any(node.op_type == "Cast" and node.attribute[0].i == TensorProto.BFLOAT16 for node in model.graph.node)
    again = model.SerializeToString()
    halve_products(model.graph, "bf16")
    assert model.SerializeToString() == again
