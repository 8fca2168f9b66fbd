"""Checkpoints, traced graphs and bundles that many tests read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from hbi_export.bundle import export_bundle
from hbi_export.graphs.modules import TracedGraph, trace_graph
from hbi_infer.model.tokenizer import clip_tokenizer_json
from hbi_training.weights.checkpoint import Checkpoint
from tests.builders.exports import ANSWERS, Exported, tiny_checkpoint, with_parts
from tests.builders.tiny_training import HBI_SECTION, TOWER


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint(HBI_SECTION)


@pytest.fixture(scope="session")
def text_graph(checkpoint: Checkpoint) -> TracedGraph:
    return trace_graph(checkpoint, "text_encoder")


@pytest.fixture(scope="session")
def frame_graph(checkpoint: Checkpoint) -> TracedGraph:
    return trace_graph(checkpoint, "frame_encoder")


@pytest.fixture(scope="session")
def clip_graph(checkpoint: Checkpoint) -> TracedGraph:
    return trace_graph(checkpoint, "clip_encoder")


@pytest.fixture(scope="session")
def whole(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """With every part that a model can have."""
    answering = {"answers": ANSWERS, "answer_widths": (16, 24), "answer_temperature": 1.5}
    checkpoint = with_parts(checkpoint, **answering, reconstruction_layers=1, caption_layers=2)
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    return Exported(checkpoint, folder, export_bundle(checkpoint, folder))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP, saved by transformers, with the whole CLIP vocabulary."""
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    torch.manual_seed(0)
    config = CLIPConfig(
        projection_dim=16,
        text_config={**TOWER, "max_position_embeddings": 24, "bos_token_id": 49406, "eos_token_id": 49407},
        vision_config={**TOWER, "image_size": 32, "patch_size": 16},
    )
    CLIPModel(config).eval().save_pretrained(folder)
    (folder / "tokenizer.json").write_text(clip_tokenizer_json())
    return folder
