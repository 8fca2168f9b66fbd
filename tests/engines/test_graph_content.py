"""Graphs that no runtime is given: those that name files, and those that grow without end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hbi_engines.errors import EngineError
from hbi_engines.graph_content import MESSAGES, TEXTS, check_graph
from hbi_engines.openvino_runtime import problem
from hbi_engines.registry import open_engine
from hbi_infer.model.bundle import Bundle, default_bundle_path
from tests.builders.hostile_graphs import doubling, endless, made, outside

ADD = helper.make_node("Add", ["x", "w"], ["y"])


def in_an_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return made([ADD], [tensor])


def in_a_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return made([helper.make_node("Constant", [], ["w"], value=tensor), ADD])


def in_a_list(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return made([helper.make_node("Constant", [], ["w"], values=[tensor]), ADD])


def branch(tensor: onnx.TensorProto) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])
    return helper.make_graph([], "branch", [], [out], [tensor])


def in_a_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Two graphs deep."""
    inner = helper.make_node("If", ["yes"], ["w"], then_branch=branch(tensor), else_branch=branch(tensor))
    outer = branch(tensor)
    del outer.initializer[:]
    outer.node.append(inner)
    both = helper.make_node("If", ["yes"], ["w"], then_branch=outer, else_branch=outer)
    return made([both, ADD], [numpy_helper.from_array(np.array(True), "yes")])


def in_a_list_of_graphs(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return made([helper.make_node("Any", ["x"], ["y"], domain="own", graphs=[branch(tensor)])])


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = made([helper.make_node("f", ["x"], ["y"], domain="own")])
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor), ADD]
    model.functions.append(helper.make_function("own", "f", ["x"], ["y"], nodes, model.opset_import))
    return model


def in_a_functions_default(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = in_a_function(tensor)
    del model.functions[0].node[0]
    model.functions[0].attribute_proto.append(helper.make_attribute("a", tensor))
    return model


def sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=tensor, indices=numpy_helper.from_array(np.array([0])), dims=[1])


def in_a_sparse_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = made([ADD])
    model.graph.sparse_initializer.append(sparse(tensor))
    return model


def in_the_places_of_a_sparse_tensor(tensor: onnx.TensorProto) -> onnx.ModelProto:
    whole = onnx.SparseTensorProto(values=numpy_helper.from_array(np.ones(1)), indices=tensor, dims=[1])
    return made([helper.make_node("Constant", [], ["w"], sparse_value=whole), ADD])


def in_training_information(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = in_an_initializer(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    model.training_info.add().algorithm.CopyFrom(branch(tensor))
    return model


PLACES = [
    in_an_initializer,
    in_a_constant,
    in_a_list,
    in_a_branch,
    in_a_list_of_graphs,
    in_a_function,
    in_a_functions_default,
    in_a_sparse_initializer,
    in_the_places_of_a_sparse_tensor,
    in_training_information,
]


@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "../../x", "*/_ORT_MEM_ADDR_/*", ""])
@pytest.mark.parametrize("place", PLACES)
def test_weights_outside_the_graph_are_refused_by_name(
    place: Callable[[onnx.TensorProto], onnx.ModelProto], location: str
) -> None:
    content = place(outside(location)).SerializeToString()
    with pytest.raises(EngineError, match="keeps its weights 'w' in another file; a graph must hold all of them"):
        check_graph(content)


@pytest.mark.parametrize("part", ["external_data", "data_location"])
def test_half_a_reference_is_one(part: str) -> None:
    """Two messages of one field are merged, so that each of them may hold half."""
    tensor = outside("x")
    tensor.ClearField(part)
    with pytest.raises(EngineError, match="in another file"):
        check_graph(in_a_constant(tensor).SerializeToString())


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("as_file", [False, True])
def test_no_runtime_reads_the_file(device: str, as_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies beside the graph and in the working folder, where a runtime would find it."""
    if device == "openvino" and problem("fp32"):
        pytest.skip(problem("fp32"))
    (tmp_path / "weights.bin").write_bytes(np.ones(1, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    content = in_an_initializer(outside("weights.bin")).SerializeToString()
    (tmp_path / "graph.onnx").write_bytes(content)
    with pytest.raises(EngineError, match="in another file"):
        open_engine(tmp_path / "graph.onnx" if as_file else content, device)


def test_long_numbers_hide_nothing() -> None:
    """Readers take a number with more bytes than it needs."""
    content = in_an_initializer(outside("x")).SerializeToString()
    location = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]).SerializeToString() + b"\xf0\x80\x00\x81\x00"
    assert onnx.TensorProto.FromString(location).data_location == TensorProto.EXTERNAL
    graph = onnx.GraphProto().SerializeToString() + b"\x2a" + bytes([len(location)]) + location
    with pytest.raises(EngineError, match="in another file"):
        check_graph(b"\x3a" + bytes([len(graph)]) + graph)
    assert b"\x70\x01" in content, "the short form"


def test_other_ways_to_a_file_are_refused() -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="x", embed_mode=0)
    with pytest.raises(EngineError, match="a node EPContext, which names another file"):
        check_graph(made([node]).SerializeToString())
    model = made([helper.make_node("Neg", ["x"], ["y"])])
    model.metadata_props.add(key="ort_config", value='{"session_options": {"enable_profiling": true}}')
    with pytest.raises(EngineError, match="settings of ONNX Runtime"):
        check_graph(model.SerializeToString())
    with pytest.raises(EngineError, match="ONNX Runtime's own format"):
        check_graph(b"\0\0\0\0ORTM" + bytes(100))
    with pytest.raises(EngineError, match="groups of fields"):
        check_graph(b"\x0b\x0c")


def test_functions_that_grow_without_end_are_refused() -> None:
    check_graph(doubling(18).SerializeToString())
    with pytest.raises(EngineError, match=r"1,099,511,627,\d+ nodes when its functions are written out"):
        check_graph(doubling(39).SerializeToString())
    model = doubling(3)
    model.functions[2].node[0].op_type, model.functions[2].node[0].domain = "f0", "own"
    with pytest.raises(EngineError, match="functions that call themselves"):
        check_graph(model.SerializeToString())


def test_graphs_that_are_too_deep_are_refused() -> None:
    field = b""
    for number in range(201):
        tag = b"\x32" if number % 3 == 0 else b"\x2a" if number % 3 == 1 else b"\x0a"  # a graph, an attribute, a node
        size = len(field)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        field = tag + length + field
    wrapped = b"\x3a" + bytes([len(field) & 127 | 128, len(field) >> 7]) + field
    with pytest.raises(EngineError, match="more than 100 graphs in each other"):
        check_graph(wrapped)


@pytest.mark.parametrize("content", [b"", b"not a graph" * 10, b"\x3a\x7f\x00", b"\x80" * 12, b"\x3a"])
def test_what_is_no_graph_is_left_to_the_runtime(content: bytes) -> None:
    check_graph(content)
    with pytest.raises(EngineError, match="ONNX Runtime refused the graph"):
        open_engine(content, "cpu")


def test_sound_graphs_pass() -> None:
    check_graph(endless())
    check_graph(in_an_initializer(numpy_helper.from_array(np.ones(1, np.float32), "location")).SerializeToString())
    bundle = Bundle.load(default_bundle_path())
    for name in bundle.manifest.graphs:
        check_graph(bundle.graph_bytes(name))


def test_the_fields_are_those_of_onnx() -> None:
    for kind, numbers in MESSAGES.items():
        fields = getattr(onnx, kind).DESCRIPTOR.fields_by_number
        assert {number: fields[number].message_type.name for number in numbers} == numbers
        assert {number: fields[number].name for number in TEXTS.get(kind, {})} == TEXTS.get(kind, {})
        nested = {number for number, field in fields.items() if field.message_type and number not in numbers}
        names = {fields[number].message_type.name for number in nested}
        assert not names & {*MESSAGES} - {"StringStringEntryProto"}, kind
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["data_location"].number == 14
