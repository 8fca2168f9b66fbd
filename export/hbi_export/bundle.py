"""Exports a checkpoint as a bundle: graphs are traced, checked, and written with their manifest."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import hbi_infer
from hbi_engines.engine import TensorSpec
from hbi_engines.registry import open_engine
from hbi_export.graphs.modules import OPSET, TracedGraph, graph_names, trace_graph
from hbi_export.graphs.parity import OutputCheck, check_graph
from hbi_export.graphs.sample_inputs import CheckInputs
from hbi_export.options import WEIGHTS
from hbi_infer.model.bundle import require_bundle_folder, write_bundle
from hbi_infer.model.graph_names import GRAPHS, LEVEL_TOKENS, TASKS, clip_graph, missing_graphs
from hbi_infer.model.manifest import BundleManifest, GraphSpec, LevelSpec, Provenance, TokenizerSpec
from hbi_training.weights.checkpoint import Checkpoint
from hbi_training.weights.rounding import Weights, rounded


def export_bundle(
    checkpoint: Checkpoint,
    folder: Path | str,
    *,
    weights: Weights = WEIGHTS,
    samples: Path | str | None = None,
    reranker: bool = True,
    clip_seconds: float | None = None,
    merge_tokens: int = 0,
) -> list[OutputCheck]:
    """Traces a checkpoint's parts, checks them and writes a bundle.

    Args:
        checkpoint: Model to export.
        folder: Folder of the bundle.
        weights: Format that weights are stored in; the checks are against a model with the same rounded weights.
        samples: Folder of videos to check the video encoder on besides.
        reranker: Whether the bundle gets the reranker of a model that has one.
        clip_seconds: Length of the clips that longer videos are cut into; None for that of the training.
        merge_tokens: Number of patches that each layer of the frame encoder merges away; the checks are against a model
            that merges them too.

    Raises:
        ExportError: A graph does not compute what the model computes.
        BundleError: The folder holds something else.
    """
    folder = Path(folder)
    samples = None if samples is None else Path(samples)
    require_bundle_folder(folder)
    checkpoint = replace(checkpoint, model=rounded(checkpoint.model, weights))
    if merge_tokens:
        checkpoint = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
        checkpoint.model.frame_encoder.merged = merge_tokens
    first_level = next(iter(checkpoint.model.level_rates))
    graphs: dict[str, TracedGraph] = {}
    inputs = CheckInputs(checkpoint, graphs, samples)
    checks: list[OutputCheck] = []
    for name in graph_names(checkpoint.model):
        if name == "reranker" and not reranker:
            continue
        graphs[name] = trace_graph(checkpoint, name, weights=weights)
        merges = GRAPHS[name].outputs == LEVEL_TOKENS
        checks += check_graph(name, graphs[name], inputs.of(name), first_level if merges else "")
    manifest = build_manifest(checkpoint, graphs, "float32" if weights == "float32" else f"{weights} weights")
    if clip_seconds is not None:
        manifest = replace(manifest, sampling=replace(manifest.sampling, clip_seconds=clip_seconds))
    contents = {name: graph.content for name, graph in graphs.items()}
    write_bundle(folder, manifest, contents, checkpoint.tokenizer_json)
    return checks


def build_manifest(checkpoint: Checkpoint, graphs: Mapping[str, TracedGraph], precision: str) -> BundleManifest:
    """Describes a bundle; `write_bundle` fills the hashes in."""
    specs = {name: _graph_spec(name, graph, precision) for name, graph in graphs.items()}
    model = checkpoint.model
    config = model.config
    return BundleManifest(
        name=checkpoint.name,
        notice=checkpoint.notice,
        width=config.width,
        max_words=config.max_words,
        vocabulary_size=checkpoint.tokenizer.vocabulary_size,
        sampling=config.sampling,
        levels=tuple(
            LevelSpec(
                name,
                video_tokens=num_tokens(specs[clip_graph(specs)].outputs, name, config.sampling.max_frames),
                text_tokens=num_tokens(specs["text_encoder"].outputs, name, config.max_words),
                rate=rate,
            )
            for name, rate in model.level_rates.items()
        ),
        padded_partner=config.padded_partner,
        logit_scale=math.exp(model.logit_scale.item()),
        tasks=tuple(task for task in TASKS if not missing_graphs(task, graphs)),
        answers=config.answers,
        tokenizer=TokenizerSpec(),
        graphs=specs,
        provenance=_provenance(checkpoint),
    )


def _graph_spec(name: str, graph: TracedGraph, precision: str) -> GraphSpec:
    engine = open_engine(graph.content, "cpu")
    return GraphSpec(
        file=f"{name}.onnx", opset=OPSET, precision=precision, inputs=engine.inputs, outputs=engine.outputs
    )


def _provenance(checkpoint: Checkpoint) -> Provenance:
    provenance = checkpoint.provenance
    recipe = provenance.get("recipe", {})
    merged_tokens = checkpoint.model.frame_encoder.merged
    return Provenance(
        recipe=json.dumps(recipe, sort_keys=True) if recipe else "none",
        data=recipe.get("data", {}).get("folder", "none") if recipe else "none",
        seed=provenance.get("seed", 0),
        code_version=provenance.get("code_version", hbi_infer.__version__),
        metrics={} if merged_tokens else provenance.get("metrics", {}),  # they were measured without
        merged_tokens=merged_tokens,
    )


def num_tokens(outputs: tuple[TensorSpec, ...], level: str, most: int) -> int:
    """Returns the number of tokens of a level that a graph declares; `most` where only a run knows it."""
    size = next(output.shape[1] for output in outputs if output.name == f"{level}_tokens")
    return size if isinstance(size, int) else most
