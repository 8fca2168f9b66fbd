"""The builder's layers compute what PyTorch's do, in every runtime that is here, and its graphs are always the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from hbi_engines.engine import TensorSpec
from hbi_engines.registry import open_engine
from hbi_infer.convert.onnx_builder import (
    Activation,
    Array,
    Attention,
    GraphBuilder,
    Linear,
    Norm,
    joined,
    patch_layer,
    pixels_to_patches,
)

DEVICES = ("cpu", "openvino")
WIDTH, HEADS = 12, 3


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def floats(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def built(add: Callable[[GraphBuilder, str], str], x: Array, *, stored: str = "float32") -> GraphBuilder:
    """A graph from x to y."""
    graph = GraphBuilder("test", stored=stored)  # type: ignore[arg-type]
    name = graph.input(TensorSpec("x", x.dtype.name, ("batch", *x.shape[1:])))
    graph.output(add(graph, name), TensorSpec("y", "float32", ("batch", *[""] * (x.ndim - 1))))
    return graph


def run(graph: GraphBuilder, x: Array, device: str = "cpu") -> Array:
    return open_engine(graph.serialised(), device).run({"x": x})["y"]


def agree(found: Array, expected: Array, tolerance: float = 2e-6) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def attention() -> Attention:
    parts = [Linear(floats(WIDTH, WIDTH, seed=n), floats(WIDTH, seed=10 + n)) for n in range(4)]
    return Attention(*parts, heads=HEADS)


def torch_attention(query: Array, memory: Array, layers: Attention, mask: Array | None = None) -> Array:
    weights = [torch.from_numpy(part.weight.T) for part in (layers.query, layers.key, layers.value, layers.output)]
    biases = [torch.from_numpy(part.bias) for part in (layers.query, layers.key, layers.value, layers.output)]
    made, _ = F.multi_head_attention_forward(
        torch.from_numpy(query).transpose(0, 1),
        torch.from_numpy(memory).transpose(0, 1),
        torch.from_numpy(memory).transpose(0, 1),
        WIDTH,
        HEADS,
        torch.cat(weights[:3]),
        torch.cat(biases[:3]),
        None,
        None,
        False,
        0.0,
        weights[3],
        biases[3],
        training=False,
        attn_mask=None if mask is None else torch.from_numpy(mask),
    )
    return made.transpose(0, 1).numpy()


@pytest.mark.parametrize("device", DEVICES)
def test_attention_of_tokens_on_themselves(device: str) -> None:
    x, mask = floats(2, 5, WIDTH), np.triu(np.full((5, 5), -1e9, np.float32), 1)

    def add(graph: GraphBuilder, name: str) -> str:
        return graph.attention(name, attention(), name="attention", mask=graph.constant("mask", mask[None, None]))

    agree(run(built(add, x), x, device), torch_attention(x, x, attention(), mask))


@pytest.mark.parametrize("device", DEVICES)
def test_attention_of_one_token_on_all(device: str) -> None:
    x = floats(2, 5, WIDTH)

    def add(graph: GraphBuilder, name: str) -> str:
        first = graph.node("Gather", name, graph.constant("zero", [0]), name="first", axis=1)
        return graph.attention(name, attention(), name="attention", queries=first)

    agree(run(built(add, x), x, device), torch_attention(x[:, :1], x, attention()))


def test_layers_without_bias_have_none_when_joined() -> None:
    plain, biased = Linear(floats(3, 2)), Linear(floats(3, 4), floats(4))
    assert joined([plain, plain]).bias is None
    both = joined([plain, biased])
    assert both.weight.shape == (3, 6)
    assert both.bias is not None
    assert both.bias.tolist() == [0, 0, *floats(4).tolist()]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("gelu", F.gelu),
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("relu", F.relu),
        ("silu", F.silu),
    ],
)
@pytest.mark.parametrize("device", DEVICES)
def test_activations(kind: Activation, expected: Callable[[torch.Tensor], torch.Tensor], device: str) -> None:
    x = np.linspace(-8, 8, 64, dtype=np.float32).reshape(2, 32)
    made = run(built(lambda graph, name: graph.activation(name, kind, name="act"), x), x, device)
    agree(made, expected(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_folds_into_the_layer_behind_it(bias: bool) -> None:
    x, norm = 3 * floats(2, 5, WIDTH) + 1, Norm(floats(WIDTH, seed=3), floats(WIDTH, seed=4), 1e-5)
    layer = Linear(floats(WIDTH, 7), floats(7) if bias else None)

    def whole(graph: GraphBuilder, name: str) -> str:
        return graph.linear(graph.norm(name, norm, WIDTH, name="norm"), layer, name="layer")

    def folded(graph: GraphBuilder, name: str) -> str:
        bare = graph.norm(name, norm.bare, WIDTH, name="norm")
        return graph.linear(bare, norm.folded_into(layer), name="layer")

    normed = F.layer_norm(torch.from_numpy(x), (WIDTH,), *map(torch.from_numpy, (norm.scale, norm.shift)), 1e-5)
    expected = normed.numpy() @ layer.weight + (0 if layer.bias is None else layer.bias)
    agree(run(built(whole, x), x), expected)
    agree(run(built(folded, x), x), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [16, 19])
def test_bytes_of_patches_give_what_a_convolution_of_normalised_pictures_gives(size: int, device: str) -> None:
    frames = rng().integers(0, 256, (6, size, size, 3), dtype=np.uint8)
    kernel, bias, mean, deviation = floats(6, 3, 8, 8), floats(6), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    def add(graph: GraphBuilder, name: str) -> str:
        patches = pixels_to_patches(graph, name, size=size, patch=8, name="patches", lead=1)
        return graph.linear(patches, patch_layer(kernel, bias, mean, deviation), name="embedding")

    pixels = torch.from_numpy(((frames / 255 - mean) / deviation).astype(np.float32)).permute(0, 3, 1, 2)
    expected = F.conv2d(pixels, torch.from_numpy(kernel), torch.from_numpy(bias), stride=8).flatten(2).mT.numpy()
    graph = GraphBuilder("test")
    graph.output(
        add(graph, graph.input(TensorSpec("x", "uint8", ("batch", *frames.shape[1:])))),
        TensorSpec("y", "float32", ("frames", 5, 6)),
    )
    found = run(graph, frames, device)
    agree(found[:, 1:], expected)
    assert np.array_equal(found[0, 0], patch_layer(kernel, bias, mean, deviation).bias)


def test_unit_vectors_and_a_zero_vector() -> None:
    x = floats(3, WIDTH)
    x[1] = 0
    made = run(built(lambda graph, name: graph.unit(name, name="unit"), x), x)
    agree(made, F.normalize(torch.from_numpy(x), dim=-1).numpy())


def test_weights_stored_in_float16_halve_the_file_and_compute_in_float32() -> None:
    x, layer = floats(2, 64), Linear(floats(64, 64), floats(64))
    graphs = [
        built(lambda graph, name: graph.linear(name, layer, name="layer"), x, stored=stored)
        for stored in ("float32", "float16")
    ]
    sizes = [len(graph.serialised()) for graph in graphs]
    assert sizes[1] < 0.6 * sizes[0]
    rounded = layer.weight.astype(np.float16).astype(np.float32)
    agree(run(graphs[1], x), x @ rounded + layer.bias)
    # Numbers that float16 cannot hold are not made infinite.
    large = Linear(np.full((64, 64), 1e6, np.float32))
    graph = built(lambda graph, name: graph.linear(name, large, name="layer"), x, stored="float16")
    assert np.isfinite(run(graph, x)).all()


def test_the_same_calls_give_the_same_bytes() -> None:
    def content() -> bytes:
        x = floats(2, 5, WIDTH)
        return built(lambda graph, name: graph.attention(name, attention(), name="attention"), x).serialised()

    assert content() == content()
    model = onnx.load_from_string(content())
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == 4, "one product for query, key and value; scores; mixing; output"
    assert not model.graph.doc_string


def test_a_name_is_given_once() -> None:
    graph = GraphBuilder("test")
    graph.constant("a", 1.0)
    with pytest.raises(ValueError, match="two results of the name a"):
        graph.constant("a", 2.0)
    assert graph.shared("a", 1.0) == "a"
