"""Graphs of encoders: what is padded changes nothing, and every runtime computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hbi_engines.registry import open_engine
from hbi_infer.convert.onnx_builder import Attention, Linear, Norm, patch_layer
from hbi_infer.convert.towers import Layer, TextTower, VisionTower, clip_graph, frame_graph, num_weights, text_graph

WIDTH, OUT = 16, 8


def floats(*shape: int, seed: int = 0, scale: float = 0.3) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def linear(width: int, out: int, seed: int) -> Linear:
    return Linear(floats(width, out, seed=seed), floats(out, seed=seed + 1))


def norm(seed: int) -> Norm:
    return Norm(1 + floats(WIDTH, seed=seed), floats(WIDTH, seed=seed + 1), 1e-5)


def layers(count: int) -> tuple[Layer, ...]:
    made = []
    for seed in range(0, 100 * count, 100):
        parts = [linear(WIDTH, WIDTH, seed + part) for part in range(0, 40, 10)]
        attention = Attention(parts[0], parts[1], parts[2], parts[3], 4)
        made.append(
            Layer(
                norm(seed + 50),
                attention,
                norm(seed + 60),
                linear(WIDTH, 24, seed + 70),
                "gelu",
                linear(24, WIDTH, seed),
            )
        )
    return tuple(made)


def text_tower() -> TextTower:
    return TextTower(floats(20, WIDTH, scale=1), floats(9, WIDTH), layers(2), norm(7), Linear(floats(WIDTH, OUT)), 19)


def vision_tower() -> VisionTower:
    return VisionTower(
        size=8,
        patch=4,
        embedding=patch_layer(floats(WIDTH, 3, 4, 4), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        class_token=floats(WIDTH, seed=3),
        positions=floats(5, WIDTH, seed=4),
        norm_before=norm(5),
        layers=layers(2),
        norm=norm(6),
        head=None,
        projection=Linear(floats(WIDTH, OUT)),
    )


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_padding_of_texts_changes_nothing(device: str) -> None:
    engine = open_engine(text_graph(text_tower()).content, device)
    ids = np.array([[18, 3, 4, 19], [18, 5, 19, 0]], np.int64)
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)
    short = engine.run({"token_ids": ids, "token_mask": mask})["video_tokens"]
    padded_ids, padded_mask = np.full((2, 9), 19, np.int64), np.zeros((2, 9), bool)
    padded_ids[:, :4], padded_mask[:, :4] = ids, mask
    padded_ids[1, 3] = 19  # padding may hold the token that ends a text, or any other
    long = engine.run({"token_ids": padded_ids, "token_mask": padded_mask})["video_tokens"]
    np.testing.assert_allclose(long, short, atol=1e-6)
    alone = engine.run({"token_ids": ids[1:, :3], "token_mask": mask[1:, :3]})["video_tokens"]
    np.testing.assert_allclose(alone[0], short[1], atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_frames_that_are_not_there_change_nothing(device: str) -> None:
    engine = open_engine(clip_graph(OUT, 3).content, device)
    features = np.random.default_rng(0).normal(size=(2, 3, OUT)).astype(np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    first = engine.run({"features": features, "frame_mask": mask})
    features[~mask] = 9
    second = engine.run({"features": features, "frame_mask": mask})
    for name in ("video_tokens", "video_weights", "frame_weights"):
        np.testing.assert_allclose(first[name], second[name], atol=1e-6)
    np.testing.assert_allclose(first["frame_weights"], [[0.5, 0.5, 0], [1, 0, 0]])
    nothing = engine.run({"features": features, "frame_mask": np.zeros((2, 3), bool)})
    assert all(np.isfinite(array).all() for array in nothing.values())
    assert not nothing["frame_weights"].any(), "which search tells as a clip without frames"


def test_the_graphs_are_small_in_nodes() -> None:
    """One product for queries, keys and values of a layer, and keys of the last layer with their values."""
    model = onnx.load_from_string(frame_graph(vision_tower()).content)
    products = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    assert sum(name.startswith("layer0.attention") for name in products) == 4
    assert sum(name.startswith("last.attention") for name in products) == 5
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    assert shapes["layer0.attention.all.weight"] == (WIDTH, 3 * WIDTH)
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 6
    scales = {node.input[1] for node in norms}
    assert scales == {"norm_before.scale", f"ones_{WIDTH}"}, "the others stand in the layers behind them"
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert {node.input[0] for node in casts} == {"patches.led"}, "pictures are bytes until they are patches"


def test_weights_are_counted() -> None:
    assert num_weights(norm(0)) == 2 * WIDTH
    assert num_weights(layers(2)) == 2 * num_weights(layers(1))
    assert num_weights(text_tower()) == 20 * WIDTH + 9 * WIDTH + num_weights(layers(2)) + 2 * WIDTH + WIDTH * OUT
