"""Engines with plugins and without, built by the real TensorRT-RTX, which needs no GPU to build."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbi_engines.engine import AxisRange
from hbi_engines.engine_files import FLAVORS, Flavor
from hbi_engines.kernels.definitions import BANZHAF_INTERACTION, KERNELS, TOKEN_MERGE, TOKEN_SIMILARITY, Kernel
from hbi_engines.registry import open_engine
from hbi_engines.tensorrt.plugins import PLUGINS
from hbi_engines.tensorrt.runtime import problem
from hbi_export.graphs.modules import TracedGraph, graph_names, trace_graph
from hbi_export.options import BuildOptions
from hbi_export.random_bundle import random_checkpoint
from hbi_export.tensorrt.build import build_engines, ranges_of, run_worker
from hbi_export.tensorrt.graph import nodes_with_plugins
from hbi_export.tensorrt.worker import BuildJob, Built
from hbi_infer.errors import ExportError
from hbi_infer.model.manifest import GraphSpec
from hbi_infer.model.tokenizer import clip_tokenizer_json
from hbi_infer.tokens.similarity import CLIPS_AT_A_TIME, TEXTS_AT_A_TIME
from tests.builders.gpu import require_gpu
from tests.builders.nodes import MERGING, node_model
from tests.builders.tiny_bundle import tiny_manifest
from tests.builders.tiny_training import HBI_SECTION

ATTRIBUTES: dict[Kernel, dict[str, Any]] = {BANZHAF_INTERACTION: {}, TOKEN_MERGE: MERGING, TOKEN_SIMILARITY: {}}


LAYERS = 1
"""Of each tower: a real one has twelve, all alike, and tracing takes its time for each."""


VIT_B_32 = {
    **HBI_SECTION,
    "clip": {
        "projection_dim": 512,
        "text_config": {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 8,
            "max_position_embeddings": 77,
        },
        "vision_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 32,
        },
    },
    "max_words": 32,
    "temporal_heads": 8,
    "merge_heads": 8,
    "sampling": {"frames_per_second": 1.0, "max_frames": 12, "image_size": 224, "clip_seconds": 12.0},
}


def build(folder: Path, content: bytes, *, plugins: bool, precision: str = "fp16", max_words: int = 32) -> Built:
    """Have an engine of a graph built."""
    engine = open_engine(content, "cpu", 1)
    spec = GraphSpec(file="", opset=20, precision="", inputs=engine.inputs, outputs=engine.outputs)
    job = BuildJob(
        flavor="tensorrt-rtx",
        precision=precision,  # type: ignore[arg-type]
        inputs=spec.inputs,
        ranges=ranges_of(spec, AxisRange(1, 2, 4), dataclasses.replace(tiny_manifest(), max_words=max_words)),
        gpus=("sm89",),
        plugins=plugins,
        engine=folder / "engine",
        timing_cache=folder / "cache",
    )
    built = run_worker(job, content, lambda _phase: None)
    assert job.engine.stat().st_size > 1000
    return built


@pytest.mark.parametrize("kernel", ATTRIBUTES, ids=lambda kernel: kernel.node)
def test_a_node_is_built_with_its_plugin_or_its_function(tmp_path: Path, kernel: Kernel) -> None:
    content = node_model(kernel, **ATTRIBUTES[kernel])
    assert nodes_with_plugins(content) == {kernel.node}
    with_plugin, without = (build(tmp_path, content, plugins=plugins) for plugins in (True, False))
    assert with_plugin.plugins == tuple(plugin for plugin in PLUGINS if plugin.name == kernel.node)
    assert without.plugins == ()
    assert with_plugin.layers < 10 < without.layers


def test_half_precision_goes_into_a_plugin(tmp_path: Path) -> None:
    content = node_model(TOKEN_SIMILARITY, "float16")
    assert [plugin.name for plugin in build(tmp_path, content, plugins=True).plugins] == ["TokenSimilarity"]


@pytest.fixture(scope="module")
def real_size() -> dict[str, TracedGraph]:
    """Every graph of an HBI of the sizes of CLIP's ViT-B/32, of random weights."""
    checkpoint = random_checkpoint(VIT_B_32, clip_tokenizer_json(), "ViT-B/32")
    return {name: trace_graph(checkpoint, name) for name in graph_names(checkpoint.model)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph", "nodes"),
    [
        ("clip_encoder", ["TokenMerge"]),
        ("text_encoder", ["TokenMerge"]),
        ("interaction", ["BanzhafInteraction"]),
        ("similarity", ["TokenSimilarity"]),
    ],
)
def test_graphs_of_real_size_build(
    tmp_path: Path, real_size: dict[str, TracedGraph], graph: str, nodes: list[str]
) -> None:
    content = real_size[graph].content
    with_plugin, without = (build(tmp_path, content, plugins=plugins) for plugins in (True, False))
    assert [plugin.name for plugin in with_plugin.plugins] == nodes
    assert without.plugins == ()
    assert with_plugin.layers < without.layers


def test_a_plugin_that_was_asked_for_and_not_taken_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customisation of Python itself makes the builder register plugins of another version."""
    (tmp_path / "sitecustomize.py").write_text(
        "import hbi_export.tensorrt.graph, hbi_engines.tensorrt.plugins\nhbi_engines.tensorrt.plugins.VERSION = '2'\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(ExportError, match=r"read TokenSimilarity through their functions, not through the plugins"):
        build(tmp_path, node_model(TOKEN_SIMILARITY), plugins=True)


def test_many_texts_and_clips_are_scored_at_a_time() -> None:
    engine = open_engine(node_model(TOKEN_SIMILARITY), "cpu", 1)
    inputs = tuple(
        dataclasses.replace(spec, shape=("num_texts" if "text" in spec.name else "num_videos", *spec.shape[1:]))
        for spec in engine.inputs
    )
    spec = GraphSpec(file="", opset=20, precision="", inputs=inputs, outputs=engine.outputs)
    ranges = ranges_of(spec, AxisRange(1, 8, 64), tiny_manifest())
    assert ranges["num_texts"] == AxisRange(1, 8, TEXTS_AT_A_TIME)
    assert ranges["num_videos"] == AxisRange(1, 8, CLIPS_AT_A_TIME)


@pytest.mark.gpu
@pytest.mark.parametrize("flavor", FLAVORS.values(), ids=list(FLAVORS))
def test_an_engine_with_plugins_gives_what_the_functions_give(tmp_path: Path, flavor: Flavor) -> None:
    require_gpu(problem(flavor))
    from hbi_export.bundle import export_bundle
    from hbi_infer import HBI
    from tests.builders.exports import tiny_checkpoint

    bundle = tmp_path / "bundle"
    export_bundle(tiny_checkpoint(HBI_SECTION), bundle)
    records, failures = build_engines(bundle, BuildOptions(flavor=flavor.option, plugins=True))  # type: ignore[arg-type]
    assert not failures
    assert {plugin.name for record in records for plugin in record.plugins} == set(KERNELS)
    on_gpu, reference = HBI.load(bundle, device=flavor.device), HBI.load(bundle, device="cpu")
    sampling = reference.bundle.manifest.sampling
    shape = (5, sampling.max_frames, sampling.image_size, sampling.image_size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mask = np.arange(sampling.max_frames) < np.arange(1, 6)[:, None]
    for _ in range(3):  # a CUDA graph takes part
        video, text = on_gpu.encode_video(frames, mask), on_gpu.encode_text(["a red circle moves left", "a ring"])
    expected_video, expected_text = (
        reference.encode_video(frames, mask),
        reference.encode_text(["a red circle moves left", "a ring"]),
    )
    for found, wanted in ((video, expected_video), (text, expected_text)):
        for name, level in wanted.items():
            np.testing.assert_allclose(found[name].tokens, level.tokens, atol=1e-2 * np.abs(level.tokens).max())
    scores = on_gpu.similarity(expected_text, expected_video)
    np.testing.assert_allclose(scores, reference.similarity(expected_text, expected_video), atol=1e-3)
