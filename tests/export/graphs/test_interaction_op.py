"""The interaction as a node: its function in standard operators against NumPy and PyTorch, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim

from hbi_engines.kernels.definitions import BANZHAF_INTERACTION
from hbi_engines.registry import open_engine
from hbi_export.graphs.custom_ops import TRANSLATIONS, add_functions
from hbi_export.graphs.interaction_op import SMALLEST_WEIGHT, banzhaf_interaction, function_proto
from hbi_export.graphs.modules import OPSET
from hbi_export.graphs.onnx_functions import DOMAIN
from hbi_infer.tokens import banzhaf as in_numpy

NAME = BANZHAF_INTERACTION.node
FLOAT32 = 2e-6  # of the largest value, against float64
Arrays = dict[str, npt.NDArray[Any]]
INPUTS = {
    "similarity": ("B", "T", "V"),
    "text_weights": ("B", "T"),
    "video_weights": ("B", "V"),
    "text_mask": ("B", "T"),
    "video_mask": ("B", "V"),
}


def node_model(kind: int = TensorProto.FLOAT, **attributes: Any) -> bytes:
    """A graph of the node alone, any B, T and V."""
    node = helper.make_node(NAME, list(INPUTS), ["interaction"], domain=DOMAIN, **attributes)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.BOOL if "mask" in name else kind, shape)
        for name, shape in INPUTS.items()
    ]
    output = helper.make_tensor_value_info("interaction", kind, ("B", "T", "V"))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(helper.make_graph([node], "graph", inputs, [output]), opset_imports=opsets, ir_version=10)
    add_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


ENGINE = open_engine(node_model(), "cpu", 1)


def random_game(seed: int, batch: int, num_text: int, num_video: int, *, peaked: float, steps: int = 0) -> Arrays:
    """Cosines of both signs, with ties where they come in steps; weights that a graph's nodes cover; ragged masks."""
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (batch, num_text, num_video))
    if steps:
        similarity = np.round(similarity * steps) / steps
    text, video = (np.exp(peaked * rng.normal(size=(batch, size))) for size in (num_text, num_video))
    text, video = (np.maximum(array, 2 * SMALLEST_WEIGHT * array.max()) for array in (text, video))
    text_mask, video_mask = (np.arange(size) < rng.integers(1, size + 1, (batch, 1)) for size in (num_text, num_video))
    floats = [array.astype(np.float32) for array in (similarity, text, video)]
    return dict(zip(INPUTS, [*floats, text_mask, video_mask], strict=True))


def in_float64(game: Arrays, probability: float = 0.5) -> npt.NDArray[np.float64]:
    arrays = [array if array.dtype == bool else array.astype(np.float64) for array in game.values()]
    return in_numpy.banzhaf_interaction(*arrays, probability=probability)


def assert_close(actual: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float = FLOAT32) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-6))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    num_text=st.integers(1, 20),
    num_video=st.integers(1, 12),
    peaked=st.sampled_from([0.0, 1.0, 5.0]),
    steps=st.sampled_from([0, 0, 2]),
)
def test_the_function_equals_numpy_and_pytorch(
    seed: int, batch: int, num_text: int, num_video: int, peaked: float, steps: int
) -> None:
    game = random_game(seed, batch, num_text, num_video, peaked=peaked, steps=steps)
    expected = in_float64(game)
    actual = ENGINE.run(game)["interaction"]
    assert actual.dtype == np.float32
    assert_close(actual, expected)
    assert_close(banzhaf_interaction(*map(torch.from_numpy, game.values())).numpy(), expected)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), more_text=st.integers(0, 5), more_video=st.integers(1, 5))
def test_padding_changes_nothing(seed: int, more_text: int, more_video: int) -> None:
    game = random_game(seed, 2, 7, 5, peaked=1.0)
    rng = np.random.default_rng(seed)
    longer = {"T": more_text, "V": more_video}
    padded = {}
    for name, array in game.items():
        widths = [(0, longer.get(axis, 0)) for axis in INPUTS[name]]
        padded[name] = np.pad(array, widths)
        if array.dtype != bool:  # whatever is there where nothing is real
            noise = rng.uniform(0, 1, padded[name].shape).astype(np.float32)
            padded[name] = np.where(np.pad(np.ones(array.shape, bool), widths), padded[name], noise)
    actual = ENGINE.run(padded)["interaction"]
    assert_close(actual[:, :7, :5], ENGINE.run(game)["interaction"])
    assert not actual[:, 7:].any()
    assert not actual[:, :, 5:].any()


def test_extreme_games() -> None:
    one = random_game(0, 1, 1, 1, peaked=0.0)
    one["similarity"][:] = 0.7
    assert_close(ENGINE.run(one)["interaction"], np.full((1, 1, 1), 0.7))
    long = random_game(1, 2, 64, 64, peaked=1.0)
    assert_close(ENGINE.run(long)["interaction"], in_float64(long))
    vanished = random_game(2, 1, 4, 3, peaked=0.0)
    vanished["text_weights"][0, 0] = 0.0  # a softmax that underflowed
    assert_close(ENGINE.run(vanished)["interaction"], in_float64(vanished))
    negative = random_game(3, 1, 4, 3, peaked=1.0)
    negative["similarity"] = -np.abs(negative["similarity"])
    assert not ENGINE.run(negative)["interaction"].any()


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.8, 0.99])
def test_other_probabilities(probability: float) -> None:
    game = random_game(4, 3, 6, 5, peaked=2.0)
    engine = open_engine(node_model(probability=probability), "cpu", 1)
    assert_close(engine.run(game)["interaction"], in_float64(game, probability))


def test_the_function_is_of_standard_operators_alone() -> None:
    function = function_proto()
    assert (function.domain, function.name) == (DOMAIN, NAME)
    assert {node.domain for node in function.node} == {""}
    assert [(part.name, part.f) for part in function.attribute_proto] == [("probability", 0.5)]
    assert not {"TopK", "Loop", "If", "Scan", "NonZero"} & {node.op_type for node in function.node}


class Doubled(nn.Module):
    """Some module that uses the operator among others."""

    def forward(self, similarity: Tensor, text: Tensor, video: Tensor) -> Tensor:
        half: Tensor = banzhaf_interaction(similarity, text, video, text > 0, video > 0, 0.25)
        return 2.0 * half


def test_any_module_that_uses_the_operator_is_exported_with_the_node() -> None:
    game = random_game(5, 2, 5, 4, peaked=1.0)
    inputs = [torch.from_numpy(game[name]) for name in ("similarity", "text_weights", "video_weights")]
    batch, words = Dim("B", min=1, max=64), Dim("T", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Doubled(),
            tuple(inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=["similarity", "text", "video"],
            output_names=["doubled"],
            dynamic_shapes=({0: batch, 1: words}, {0: batch, 1: words}, {0: batch}),
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    add_functions(proto)
    (node,) = [node for node in proto.graph.node if node.domain == DOMAIN]
    assert node.op_type == NAME
    assert {part.name: part.f for part in node.attribute} == {"probability": 0.25}
    other = random_game(6, 3, 9, 4, peaked=1.0)
    for mask in ("text_mask", "video_mask"):
        other[mask][:] = True
    engine = open_engine(proto.SerializeToString(), "cpu", 1)
    given = dict(zip(("similarity", "text", "video"), list(other.values())[:3], strict=True))
    assert_close(engine.run(given)["doubled"], 2.0 * in_float64(other, 0.25))


def test_half_precision_goes_in_and_comes_out() -> None:
    """The arithmetic is in float32 all the same."""
    game = random_game(7, 2, 5, 4, peaked=1.0)
    halves = [torch.from_numpy(array) for array in game.values()]
    halves = [part.half() if part.is_floating_point() else part for part in halves]
    result = banzhaf_interaction(*halves)
    assert result.dtype == torch.float16
    assert_close(result.float().numpy(), in_float64(game), 2e-3)
    engine = open_engine(node_model(TensorProto.FLOAT16), "cpu", 1)
    by_the_function = engine.run(dict(zip(INPUTS, (part.numpy() for part in halves), strict=True)))["interaction"]
    assert by_the_function.dtype == np.float16
    assert_close(by_the_function.astype(np.float32), in_float64(game), 2e-3)
    fake = torch.library.opcheck(banzhaf_interaction, tuple(map(torch.from_numpy, game.values())))
    assert set(fake.values()) == {"SUCCESS"}
