from __future__ import annotations

import numpy as np
import pytest
import torch

from hbi_engines.engine import TensorSpec
from hbi_engines.errors import DeviceError, EngineError
from hbi_export.graphs.modules import AnswererGraph, CaptionerPrefillGraph
from hbi_export.pytorch.engine import TorchDevice, torch_graphs
from hbi_export.random_bundle import SIZES, random_checkpoint, random_model
from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.manifest import GraphSpec
from hbi_infer.model.tokenizer import clip_tokenizer_json
from hbi_training.model.config import HBIConfig
from hbi_training.model.hbi import HBI
from hbi_training.weights.checkpoint import Checkpoint
from hbi_training.weights.rounding import computes_in_bfloat16
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION

EAGER = TorchDevice("torch", "cpu", compiled=False, dtype=None)
NUM_ITEMS = 3


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
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
def test_the_answerer_in_pytorch_gives_the_models_logits(checkpoint: Checkpoint, compiled: bool) -> None:
    assert isinstance(checkpoint.model, HBI)
    graph = AnswererGraph(checkpoint.model)
    spec = token_spec(graph, {"logits": ("B", 3)})
    how = TorchDevice("torch", "cpu", compiled=compiled, dtype=None)
    engine = torch_graphs(checkpoint, {"answerer": spec}, how)("answerer")
    arrays = tokens(spec)
    with torch.no_grad():
        expected = graph(*(torch.from_numpy(arrays[name]) for name in graph.input_names))["logits"].numpy()
    np.testing.assert_allclose(engine.run(arrays)["logits"], expected, atol=1e-5)
    assert ("compiled" if compiled else "eager") in engine.device_reason


def test_an_engine_checks_what_it_is_given_and_can_be_closed(checkpoint: Checkpoint) -> None:
    assert isinstance(checkpoint.model, HBI)
    graph = CaptionerPrefillGraph(checkpoint.model, checkpoint.tokenizer.sot_id)
    vocabulary = checkpoint.tokenizer.vocabulary_size
    names = {"memory_keys": (), "memory_values": (), "present_keys": (), "present_values": ()}
    spec = token_spec(graph, {"logits": ("B", vocabulary), **names})
    engine = torch_graphs(checkpoint, {"captioner_prefill": spec}, EAGER)("captioner_prefill")
    arrays = tokens(spec)
    with pytest.raises(EngineError, match="it takes exactly"):
        engine.run({})
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.run(arrays)


def test_a_checkpoint_of_another_model_is_refused(checkpoint: Checkpoint) -> None:
    assert isinstance(checkpoint.model, HBI)
    spec = token_spec(AnswererGraph(checkpoint.model), {"logits": ("B", 3)})
    pooled = random_checkpoint(MEAN_POOLED_SECTION, checkpoint.tokenizer_json, "pooled")
    with pytest.raises(BundleError, match="exported from another model"):
        torch_graphs(pooled, {"answerer": spec}, EAGER)("answerer")
    with pytest.raises(BundleError, match="no graph reranker"):
        torch_graphs(checkpoint, {"answerer": spec}, EAGER)("reranker")


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


def test_the_random_sizes_are_models() -> None:
    for section in SIZES.values():
        config = HBIConfig.from_json({key: value for key, value in section.items() if key != "kind"})
        assert (config.width, len(config.answers), config.caption_layers) == (512, 1500, 4)
    with pytest.raises(InputError, match="choose from: vit-b-32"):
        random_model("vit-l", print)


def test_random_weights_are_the_same_each_time(checkpoint: Checkpoint) -> None:
    again = random_checkpoint(MEAN_POOLED_SECTION, checkpoint.tokenizer_json, "tiny").model.state_dict()
    for name, tensor in (
        random_checkpoint(MEAN_POOLED_SECTION, checkpoint.tokenizer_json, "tiny").model.state_dict().items()
    ):
        assert torch.equal(tensor, again[name])
