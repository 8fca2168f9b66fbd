"""Outputs of graphs: their names, types, shapes and numbers, in every task and on every runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hbi_engines.openvino_runtime import problem
from hbi_infer import HBI
from hbi_infer.errors import BundleError, EngineError
from hbi_infer.model.bundle import write_bundle
from hbi_infer.options import Decoding
from tests.builders.hostile_graphs import endless
from tests.builders.tiny_bundle import (
    COLOURS,
    FRAMES,
    SAMPLING,
    tiny_graphs,
    tiny_manifest,
    tokenizer_json,
    write_tiny_bundle,
)

Change = Callable[[onnx.ModelProto, str], None]


def times(value: float) -> Change:
    """Multiplies an output by a number."""

    def change(model: onnx.ModelProto, output: str) -> None:
        for node in model.graph.node:
            for side in (node.input, node.output):
                for number, name in enumerate(side):
                    side[number] = "raw" if name == output else name
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "factor"))
        model.graph.node.append(helper.make_node("Mul", ["raw", "factor"], [output]))

    return change


def with_a_row_more(model: onnx.ModelProto, output: str) -> None:
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            node.output[number] = "raw" if name == output else name
    model.graph.node.append(helper.make_node("Concat", ["raw", "raw"], [output], axis=0))


def hidden_size(model: onnx.ModelProto, output: str) -> None:
    """The graph states nothing of the output's sizes, and gives one number less."""
    dims = next(value for value in model.graph.output if value.name == output).type.tensor_type.shape.dim
    for dim in dims:
        dim.dim_param = f"{output}_{len(dims)}"
    dims[-1].dim_param = "unknown"
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            node.output[number] = "raw" if name == output else name
    for name, values in (("from", [0]), ("to", [-1]), ("axis", [-1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    model.graph.node.append(helper.make_node("Slice", ["raw", "from", "to", "axis"], [output]))


def changed(folder: Path, graph: str, output: str, change: Change, device: str = "cpu") -> HBI:
    graphs = tiny_graphs("qa", "caption")
    model = onnx.load_from_string(graphs[graph])
    change(model, output)
    graphs[graph] = model.SerializeToString()
    write_bundle(folder, tiny_manifest("qa", "caption"), graphs, tokenizer_json())
    return HBI.load(folder, device=device, threads=1)


def clips(*colours: str) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(colours), FRAMES, SAMPLING.image_size, SAMPLING.image_size, 3)
    pixels = np.array([COLOURS[colour] for colour in colours], np.uint8)[:, None, None, None]
    return np.broadcast_to(pixels, shape).copy(), np.ones(shape[:2], np.bool_)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("sound") / "tiny", "qa", "caption"), device="cpu")


BEAM, GREEDY, DRAWN = Decoding(), Decoding(beam_size=1), Decoding(beam_size=1, nucleus=0.9)
RUNS: list[tuple[str, str, Callable[[HBI, HBI], object]]] = [
    ("text_encoder", "entity_tokens", lambda hbi, _: hbi.encode_text(["red"])),
    ("text_encoder", "event_weights", lambda hbi, _: hbi.encode_text(["red"])),
    ("answerer", "logits", lambda hbi, sound: hbi.answer_logits(text_of(sound), video_of(sound))),
    ("captioner_prefill", "logits", lambda hbi, sound: hbi.write_captions(video_of(sound), BEAM)),
    ("captioner_prefill", "memory_keys", lambda hbi, sound: hbi.write_captions(video_of(sound), GREEDY)),
    ("captioner_step", "logits", lambda hbi, sound: hbi.write_captions(video_of(sound), BEAM)),
    ("captioner_step", "logits", lambda hbi, sound: hbi.write_captions(video_of(sound), GREEDY)),
    ("captioner_step", "present_keys", lambda hbi, sound: hbi.write_captions(video_of(sound), DRAWN)),
]


def text_of(hbi: HBI) -> dict:
    return hbi.encode_text(["what colour is it?"])


def video_of(hbi: HBI) -> dict:
    return hbi.encode_video(*clips("red"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("graph", "output", "run"), RUNS)
def test_numbers_that_are_not_finite_name_graph_and_output(
    tmp_path: Path, sound: HBI, graph: str, output: str, run: Callable[[HBI, HBI], object], value: float
) -> None:
    hbi = changed(tmp_path / "b", graph, output, times(value))
    with pytest.raises(EngineError) as caught:
        run(hbi, sound)
    message = str(caught.value)
    assert f"the graph {graph} of {tmp_path / 'b'} gives numbers that are not finite" in message
    assert output in message


def test_so_they_do_in_openvino(tmp_path: Path) -> None:
    if problem("fp32"):
        pytest.skip(problem("fp32"))
    hbi = changed(tmp_path / "b", "text_encoder", "entity_tokens", times(np.nan), "openvino")
    with pytest.raises(EngineError, match=r"gives numbers that are not finite \(entity_tokens\)"):
        hbi.encode_text(["red"])


def test_a_video_encoder_gives_what_it_gives(tmp_path: Path) -> None:
    """One video may be at fault; the callers tell."""
    hbi = changed(tmp_path / "b", "video_encoder", "entity_tokens", times(np.nan))
    assert np.isnan(hbi.encode_video(*clips("red"))["entity"].tokens).all()


@pytest.mark.parametrize(
    ("graph", "output", "change", "message"),
    [
        ("answerer", "logits", with_a_row_more, r"gives the shape \(2, 3\) for a batch of 1 for its output logits"),
        ("answerer", "logits", hidden_size, r"gives the shape \(1, 2\) for a batch of 1 for its output logits"),
    ],
)
def test_another_shape_is_told(
    tmp_path: Path, sound: HBI, graph: str, output: str, change: Change, message: str
) -> None:
    hbi = changed(tmp_path / "b", graph, output, change)
    with pytest.raises(EngineError, match=message):
        hbi.answer_logits(text_of(sound), video_of(sound))


def of_another_type(model: onnx.ModelProto, output: str) -> None:
    value = next(value for value in model.graph.output if value.name == output)
    value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            node.output[number] = "raw" if name == output else name
    model.graph.node.append(helper.make_node("Cast", ["raw"], [output], to=TensorProto.DOUBLE))


def test_a_graph_that_declares_another_output_is_refused(tmp_path: Path, sound: HBI) -> None:
    hbi = changed(tmp_path / "b", "answerer", "logits", of_another_type)
    with pytest.raises(BundleError, match=r"has logits \(B, 3\) float64; its manifest says logits \(B, 3\) float32"):
        hbi.answer_logits(text_of(sound), video_of(sound))


def test_weights_of_a_text_that_are_none(tmp_path: Path) -> None:
    for value in (0, -1):
        hbi = changed(tmp_path / "b", "text_encoder", "event_weights", times(value))
        with pytest.raises(EngineError, match=r"gives weights that are negative or all 0 \(event_weights\)"):
            hbi.encode_text(["red"])


def test_large_numbers_are_finite(tmp_path: Path) -> None:
    """The sum of their squares is not."""
    hbi = changed(tmp_path / "b", "text_encoder", "event_tokens", times(1e30))
    assert np.isfinite(hbi.encode_text(["red"])["event"].tokens).all()


def test_a_graph_that_never_ends_is_named(tmp_path: Path) -> None:
    graphs = tiny_graphs()
    model, loop = onnx.load_from_string(graphs["text_encoder"]), onnx.load_from_string(endless(starts_with="one"))
    times(1)(model, "event_tokens")
    model.graph.node[-1].input[1] = "looped"
    del model.graph.initializer[-1]
    model.graph.initializer.extend(loop.graph.initializer)
    model.graph.node.insert(0, loop.graph.node[0])
    graphs["text_encoder"] = model.SerializeToString()
    write_bundle(tmp_path / "b", tiny_manifest(), graphs, tokenizer_json())
    hbi = HBI.load(tmp_path / "b", device="cpu", threads=1, limit_seconds=0.5)
    with pytest.raises(EngineError, match=r"the graph text_encoder of .*: a run took longer than the limit of 0\.5 s"):
        hbi.encode_text(["red"])
