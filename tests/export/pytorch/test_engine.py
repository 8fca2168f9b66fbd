"""A model in PyTorch behind the protocol of the runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbi_engines.engine import Arrays, Engine, TensorSpec
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.registry import open_engine
from hbi_export.graphs.modules import AnswererGraph, CaptionerPrefillGraph
from hbi_export.graphs.sample_inputs import (
    clip_inputs,
    random_text_inputs,
    random_token_inputs,
    random_video_inputs,
)
from hbi_export.pytorch.engine import TorchDevice, torch_graphs
from hbi_export.random_bundle import random_checkpoint
from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.graph_names import exported_graphs
from hbi_infer.model.manifest import GraphSpec
from hbi_infer.model.tokenizer import clip_tokenizer_json
from hbi_training.model.config import HBIConfig
from hbi_training.model.hbi import HBI
from hbi_training.weights.checkpoint import Checkpoint
from hbi_training.weights.rounding import computes_in_bfloat16
from tests.builders.exports import Exported
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION

EAGER = TorchDevice("torch", "cpu", compiled=False, dtype=None)


NUM_ITEMS = 3


@pytest.fixture(scope="module")
def small() -> Checkpoint:
    parts = {"reconstruction_layers": 1, "caption_layers": 1, "answers": ["yes", "no", "red"]}
    return random_checkpoint({**HBI_SECTION, **parts}, clip_tokenizer_json(["a red circle moves left"]), "tiny")


def token_spec(graph: AnswererGraph | CaptionerPrefillGraph, outputs: dict[str, tuple[int | str, ...]]) -> GraphSpec:
    """What a graph on tokens takes, in another order than its module does."""
    inputs = tuple(
        TensorSpec(name, "float32", ("B", "", 32) if name.endswith("tokens") else ("B", ""))
        for name in sorted(graph.input_names)
    )
    assert [spec.name for spec in inputs] != list(graph.input_names)
    given = tuple(TensorSpec(name, "float32", shape) for name, shape in outputs.items())
    return GraphSpec(file="a.onnx", opset=20, precision="float32", inputs=inputs, outputs=given)


def tokens(spec: GraphSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"entity": 6, "action": 3, "event": 1}
    arrays = {}
    for each in spec.inputs:
        shape = (NUM_ITEMS, sizes[each.name.split("_")[1]], *each.shape[2:])
        arrays[each.name] = rng.uniform(0.1, 1.0, tuple(map(int, shape))).astype(np.float32)
    return arrays


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # PyTorch, of its own compiler
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_answerer_in_pytorch_gives_the_models_logits(small: Checkpoint, compiled: bool) -> None:
    assert isinstance(small.model, HBI)
    graph = AnswererGraph(small.model)
    spec = token_spec(graph, {"logits": ("B", 3)})
    how = TorchDevice("torch", "cpu", compiled=compiled, dtype=None)
    engine = torch_graphs(small, {"answerer": spec}, how)("answerer")
    arrays = tokens(spec)
    with torch.no_grad():
        expected = graph(*(torch.from_numpy(arrays[name]) for name in graph.input_names))["logits"].numpy()
    np.testing.assert_allclose(engine.run(arrays)["logits"], expected, atol=1e-5)
    assert ("compiled" if compiled else "eager") in engine.device_reason


def test_an_engine_checks_what_it_is_given_and_can_be_closed(small: Checkpoint) -> None:
    assert isinstance(small.model, HBI)
    graph = CaptionerPrefillGraph(small.model, small.tokenizer.sot_id)
    vocabulary = small.tokenizer.vocabulary_size
    names = {"memory_keys": (), "memory_values": (), "present_keys": (), "present_values": ()}
    spec = token_spec(graph, {"logits": ("B", vocabulary), **names})
    engine = torch_graphs(small, {"captioner_prefill": spec}, EAGER)("captioner_prefill")
    arrays = tokens(spec)
    with pytest.raises(EngineError, match="it takes exactly"):
        engine.run({})
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.run(arrays)


def test_a_checkpoint_of_another_model_is_refused(small: Checkpoint) -> None:
    assert isinstance(small.model, HBI)
    spec = token_spec(AnswererGraph(small.model), {"logits": ("B", 3)})
    pooled = random_checkpoint(MEAN_POOLED_SECTION, small.tokenizer_json, "pooled")
    with pytest.raises(BundleError, match="exported from another model"):
        torch_graphs(pooled, {"answerer": spec}, EAGER)("answerer")
    with pytest.raises(BundleError, match="no graph reranker"):
        torch_graphs(small, {"answerer": spec}, EAGER)("reranker")


def test_names_of_devices() -> None:
    assert TorchDevice.named("torch") == EAGER
    assert TorchDevice.named("torch:compile").compiled
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="finds no GPU"):
            TorchDevice.named("torch-cuda:fp16")
    if computes_in_bfloat16(cpu=True):
        assert TorchDevice.named("torch:bf16").dtype is torch.bfloat16
    else:
        with pytest.raises(DeviceError, match="does not compute in bfloat16"):
            TorchDevice.named("torch:compile:bf16")


def step_inputs(prefill: Engine, inputs: Arrays) -> Arrays:
    """The first word of captions, behind the start."""
    state = prefill.run({spec.name: inputs[spec.name] for spec in prefill.inputs})
    words = {"token_ids": state["logits"].argmax(axis=1)}
    return words | {name.replace("present", "past"): array for name, array in state.items() if name != "logits"}


def test_pytorch_has_a_module_of_every_graph(whole: Exported) -> None:
    """On a GPU all of them are measured, and `similarity` too, which NumPy computes here."""
    checkpoint, folder, _ = whole
    bundle = Bundle.load(folder)
    manifest, config = bundle.manifest, checkpoint.model.config
    assert tuple(manifest.graphs) == exported_graphs()
    assert isinstance(config, HBIConfig)
    eager = TorchDevice("torch", "cpu", compiled=False, dtype=None)
    open_graph = torch_graphs(checkpoint, dict(manifest.graphs), eager)
    inputs = random_text_inputs(manifest.vocabulary_size, manifest.max_words)
    clips = random_video_inputs(manifest.sampling)
    inputs |= clip_inputs(open_graph("frame_encoder").run, clips) | random_token_inputs(config)
    inputs["frames"] = clips["frames"][clips["frame_mask"]]
    for name, spec in manifest.graphs.items():
        if name == "captioner_step":
            inputs |= step_inputs(open_graph("captioner_prefill"), inputs)
        given = {tensor.name: inputs[tensor.name] for tensor in spec.inputs}
        made, expected = open_graph(name).run(given), open_engine(bundle.graph_bytes(name), "cpu").run(given)
        assert made.keys() == expected.keys()
        for output in spec.outputs:
            np.testing.assert_allclose(made[output.name], expected[output.name], atol=1e-4, err_msg=name)
