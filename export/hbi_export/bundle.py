"""A checkpoint becomes a bundle: graphs traced, checked, and written with their manifest."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import hbi_infer
from hbi_engines.engine import TensorSpec
from hbi_engines.registry import open_engine
from hbi_export.graphs.modules import (
    OPSET,
    TracedGraph,
    trace_answerer,
    trace_captioner,
    trace_interaction,
    trace_reranker,
    trace_similarity,
    trace_text_encoder,
    trace_video_encoder,
)
from hbi_export.graphs.parity import OutputCheck, check_graph, in_parts
from hbi_export.graphs.sample_inputs import (
    caption_inputs,
    caption_step_inputs,
    drawn_video_inputs,
    encoded_token_inputs,
    fewer_texts,
    random_text_inputs,
    random_token_inputs,
    random_video_inputs,
    video_inputs,
)
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import require_bundle_folder, write_bundle
from hbi_infer.model.manifest import TASK_GRAPHS, BundleManifest, GraphSpec, LevelSpec, Provenance, TokenizerSpec
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json, clip_tokenizer_json_from_folder
from hbi_infer.options import FrameSampling
from hbi_training.model.clip_encoders import load_clip
from hbi_training.model.hbi import HBI
from hbi_training.model.mean_pooled_clip import MeanPooledCLIP, MeanPooledConfig
from hbi_training.weights.checkpoint import Checkpoint, Model
from hbi_training.weights.rounding import Weights, rounded


def export_bundle(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    weights: Weights = "float32",
    samples: Path | None = None,
    reranker: bool = True,
    clip_seconds: float | None = None,
) -> list[OutputCheck]:
    """Traces a checkpoint's parts, checks them and writes a bundle.

    Args:
        checkpoint: What to export.
        folder: The bundle.
        weights: How they are stored; the checks are against a model with the same rounded weights.
        samples: A folder of videos to check the video encoder on besides.
        reranker: Whether pairs can be compared by their reconstructed tokens, where the model has a reconstruction.
        clip_seconds: Longer videos are cut into clips of this length; None for that of the training.

    Raises:
        ExportError: A graph does not compute what the model computes.
        BundleError: The folder holds something else.
    """
    require_bundle_folder(folder)
    model = rounded(checkpoint.model, weights)
    config, tokenizer = model.config, checkpoint.tokenizer
    first_level = next(iter(model.level_rates))
    video_sets = {"random": random_video_inputs(config.sampling), "drawn": drawn_video_inputs(config.sampling)}
    if samples is not None:
        video_sets["sample"] = video_inputs(samples, config.sampling)
    text_sets = {
        "random": random_text_inputs(tokenizer.vocabulary_size, config.max_words),
        "caption": caption_inputs(tokenizer, config.max_words),
    }
    graphs = {
        "video_encoder": trace_video_encoder(model, weights=weights),
        "text_encoder": trace_text_encoder(model, weights=weights),
    }
    checks = check_graph("video_encoder", graphs["video_encoder"], video_sets, first_level)
    checks += check_graph("text_encoder", graphs["text_encoder"], text_sets, first_level)
    if isinstance(model, HBI):
        graphs["interaction"] = trace_interaction(model.config)
        texts = in_parts(graphs["text_encoder"].eager, text_sets["caption"])
        videos = in_parts(graphs["video_encoder"].eager, video_sets["drawn"])
        token_sets = {"random": random_token_inputs(model.config), "real": encoded_token_inputs(texts, videos)}
        checks += check_graph("interaction", graphs["interaction"], token_sets)
        graphs["similarity"] = trace_similarity(model.config)
        uneven = {name: fewer_texts(inputs) for name, inputs in token_sets.items()}
        checks += check_graph("similarity", graphs["similarity"], uneven)
        if reranker and model.reconstruction is not None:
            graphs["reranker"] = trace_reranker(model, weights=weights)
            checks += check_graph("reranker", graphs["reranker"], token_sets)
        if model.answer_head is not None:
            graphs["answerer"] = trace_answerer(model, weights=weights)
            checks += check_graph("answerer", graphs["answerer"], token_sets)
        if model.caption_decoder is not None:
            prefill, step = trace_captioner(model, tokenizer.sot_id, weights=weights)
            graphs |= {"captioner_prefill": prefill, "captioner_step": step}
            of_videos = {
                name: {part: inputs[part] for part in prefill.input_names} for name, inputs in token_sets.items()
            }
            checks += check_graph("captioner_prefill", prefill, of_videos)
            checks += check_graph("captioner_step", step, caption_step_inputs(prefill, step, of_videos["random"]))
    manifest = build_manifest(checkpoint, model, graphs, "float32" if weights == "float32" else f"{weights} weights")
    if clip_seconds is not None:
        manifest = replace(manifest, sampling=replace(manifest.sampling, clip_seconds=clip_seconds))
    contents = {name: graph.content for name, graph in graphs.items()}
    write_bundle(folder, manifest, contents, checkpoint.tokenizer_json)
    return checks


def build_manifest(
    checkpoint: Checkpoint,
    model: Model,
    graphs: dict[str, TracedGraph],
    precision: str,
) -> BundleManifest:
    """Everything that bundle.json says; `write_bundle` fills the hashes in."""
    specs = {}
    for name, graph in graphs.items():
        engine = open_engine(graph.content, "cpu")
        specs[name] = GraphSpec(
            file=f"{name}.onnx", opset=OPSET, precision=precision, inputs=engine.inputs, outputs=engine.outputs
        )
    provenance = checkpoint.provenance
    recipe = provenance.get("recipe", {})
    return BundleManifest(
        name=checkpoint.name,
        notice=checkpoint.notice,
        width=model.config.width,
        max_words=model.config.max_words,
        vocabulary_size=checkpoint.tokenizer.vocabulary_size,
        sampling=model.config.sampling,
        levels=tuple(
            LevelSpec(
                name,
                video_tokens=num_tokens(specs["video_encoder"].outputs, name, model.config.sampling.max_frames),
                text_tokens=num_tokens(specs["text_encoder"].outputs, name, model.config.max_words),
                rate=rate,
            )
            for name, rate in model.level_rates.items()
        ),
        padded_partner=getattr(model.config, "padded_partner", "ignore"),
        logit_scale=math.exp(model.logit_scale.item()),
        tasks=tuple(task for task, needed in TASK_GRAPHS.items() if set(needed) <= graphs.keys()),
        answers=getattr(model.config, "answers", ()),
        tokenizer=TokenizerSpec(),
        graphs=specs,
        provenance=Provenance(
            recipe=json.dumps(recipe, sort_keys=True) if recipe else "none",
            data=recipe.get("data", {}).get("folder", "none") if recipe else "none",
            seed=provenance.get("seed", 0),
            code_version=provenance.get("code_version", hbi_infer.__version__),
            metrics=provenance.get("metrics", {}),
        ),
    )


def num_tokens(outputs: tuple[TensorSpec, ...], level: str, most: int) -> int:
    """Tokens of a level as the graph declares them; `most` where the number is only known when the graph runs."""
    size = next(output.shape[1] for output in outputs if output.name == f"{level}_tokens")
    return size if isinstance(size, int) else most


def clip_checkpoint(source: str, *, sampling: FrameSampling | None = None) -> Checkpoint:
    """A zero-shot checkpoint from any CLIP: mean-pooled frames, no training.

    Args:
        source: A local folder that transformers saved, or a name on the hub.
        sampling: How videos become frames; the image size is the model's own.

    Raises:
        TrainingError: There is no such CLIP.
    """
    clip = load_clip(source)
    values: dict[str, Any] = clip.config.to_dict()
    sampling = replace(sampling or FrameSampling(), image_size=values["vision_config"]["image_size"])
    max_words = values["text_config"]["max_position_embeddings"]
    config = MeanPooledConfig(clip=values, max_words=max_words, sampling=sampling)
    model = MeanPooledCLIP(config, clip).eval()
    has_tokenizer = any((Path(source) / name).is_file() for name in ("tokenizer.json", "merges.txt"))
    tokenizer_json = clip_tokenizer_json_from_folder(Path(source)) if has_tokenizer else clip_tokenizer_json()
    known, made = values["text_config"]["vocab_size"], Tokenizer.from_json(tokenizer_json).vocabulary_size
    if made > known:
        raise ExportError(
            f"the tokenizer of {source} makes {made} tokens and its model knows {known}; put the tokenizer.json that "
            "belongs to the model into its folder"
        )
    return Checkpoint(model, tokenizer_json, Path(source).name)
