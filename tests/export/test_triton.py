"""Model repositories for Triton, read by Triton's own protocol buffers; and what they serve, run as it would be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from onnx import helper
from tritonclient.grpc import model_config_pb2

from hbi_engines.engine import AxisRange, TensorSpec
from hbi_engines.engine_files import FOLDER, EngineRecord, PluginUse
from hbi_engines.registry import open_engine
from hbi_export.cli import main
from hbi_export.options import TritonOptions
from hbi_export.triton import export_triton
from hbi_infer.errors import BundleError, EngineError, ExportError
from hbi_infer.model.bundle import Bundle, default_bundle_path, write_bundle
from hbi_infer.model.manifest import GraphSpec
from tests.builders.in_process import run_main
from tests.builders.tiny_bundle import (
    MAX_WORDS,
    SAMPLING,
    make_graph,
    tiny_graphs,
    tiny_manifest,
    tokenizer_json,
    write_tiny_bundle,
)

TYPES = {"uint8": "TYPE_UINT8", "bool": "TYPE_BOOL", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_tiny_bundle(tmp_path / "tiny", "retrieve", "qa", "caption"))


def read_config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_every_graph_is_a_model_that_triton_can_read(bundle: Bundle, tmp_path: Path) -> None:
    folders = export_triton(bundle.path, tmp_path / "repo", TritonOptions(max_batch=32, instances=2))
    graphs = bundle.manifest.graphs
    assert [folder.name for folder in folders] == [f"{bundle.manifest.name}_{graph}" for graph in graphs]
    for folder, (graph, spec) in zip(folders, graphs.items(), strict=True):
        config = read_config(folder)
        assert (config.name, config.platform) == (folder.name, "onnxruntime_onnx")
        assert config.max_batch_size == 32
        assert config.dynamic_batching.max_queue_delay_microseconds == 500
        assert [group.count for group in config.instance_group] == [2]
        assert hashlib.sha256((folder / "1" / "model.onnx").read_bytes()).hexdigest() == graphs[graph].sha256
        for given, declared in ((config.input, spec.inputs), (config.output, spec.outputs)):
            assert [tensor.name for tensor in given] == [tensor.name for tensor in declared]
            for tensor, own in zip(given, declared, strict=True):
                assert model_config_pb2.DataType.Name(tensor.data_type) == TYPES[own.dtype]
                dims = [size if isinstance(size, int) else -1 for size in own.shape[1:]]
                assert list(tensor.dims) == (dims or [1])  # Triton refuses an empty shape
                assert tensor.HasField("reshape") == (not dims)
                assert list(tensor.reshape.shape) == []


def test_what_triton_would_warm_up_with_runs(bundle: Bundle, tmp_path: Path) -> None:
    for folder in export_triton(bundle.path, tmp_path / "repo"):
        (warm_up,) = read_config(folder).model_warmup
        engine = open_engine(folder / "1" / "model.onnx", "cpu")
        inputs = {}
        for spec in engine.inputs:
            part = warm_up.inputs[spec.name]
            assert part.zero_data
            assert -1 not in part.dims
            shape = (warm_up.batch_size, *part.dims)[: len(spec.shape)]
            inputs[spec.name] = np.zeros(shape, spec.dtype)
        assert set(warm_up.inputs) == inputs.keys()
        assert set(engine.run(inputs)) == {spec.name for spec in engine.outputs}


def test_triton_would_load_the_embedded_model(tmp_path: Path) -> None:
    """What ONNX Runtime says of each file is what the configuration says, with the batch that Triton puts first."""
    folders = export_triton(default_bundle_path(), tmp_path / "repo")
    assert len(folders) >= 3
    for folder in folders:
        config, engine = read_config(folder), open_engine(folder / "1" / "model.onnx", "cpu")
        batched = not folder.name.endswith("similarity")  # whose texts and videos have numbers of their own
        assert config.max_batch_size == (64 if batched else 0)
        for given, own in ((config.input, engine.inputs), (config.output, engine.outputs)):
            assert [tensor.name for tensor in given] == [spec.name for spec in own]
            for tensor, spec in zip(given, own, strict=True):
                dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
                shape = [size if isinstance(size, int) else -1 for size in spec.shape]
                assert [*([-1] if batched else []), *dims] == shape, (folder.name, tensor.name)


def test_a_graph_of_all_pairs_is_not_batched(tmp_path: Path) -> None:
    """Texts and videos have numbers of their own: to put requests behind one another would score other pairs."""
    inputs = TensorSpec("texts", "float32", ("num_texts", 3)), TensorSpec("videos", "float32", (3, "num_videos"))
    outputs = (TensorSpec("scores", "float32", ("num_texts", "num_videos")),)
    content = make_graph([helper.make_node("MatMul", ["texts", "videos"], ["scores"])], inputs, outputs, {})
    manifest = tiny_manifest()
    spec = GraphSpec(file="pairs.onnx", opset=20, precision="float32", inputs=inputs, outputs=outputs)
    manifest = replace(manifest, graphs={**manifest.graphs, "pairs": spec})
    write_bundle(tmp_path / "tiny", manifest, {**tiny_graphs(), "pairs": content}, tokenizer_json())
    config = read_config(export_triton(tmp_path / "tiny", tmp_path / "repo")[-1])
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[-1, 3], [3, -1], [-1, -1]]
    assert all(size > 0 for part in config.model_warmup[0].inputs.values() for size in part.dims)


def test_a_client_finds_words_and_sampling_beside_the_models(bundle: Bundle, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    export_triton(bundle.path, repository)
    about = json.loads((repository / f"{bundle.manifest.name}.bundle.json").read_text())
    assert about["sampling"]["max_frames"] == SAMPLING.max_frames
    assert about["max_words"] == MAX_WORDS
    sha256 = hashlib.sha256((repository / f"{bundle.manifest.name}.bundle.json").read_bytes()).hexdigest()
    for graph in bundle.manifest.graphs:
        config = read_config(repository / f"{bundle.manifest.name}_{graph}")
        assert config.parameters["bundle_sha256"].string_value == sha256
    assert (repository / f"{bundle.manifest.name}.tokenizer.json").read_text() == bundle.tokenizer_json()


def record(bundle: Bundle, graph: str, **changes: Any) -> EngineRecord:
    spec = bundle.manifest.graphs[graph]
    made = EngineRecord(
        graph=graph,
        graph_sha256=spec.sha256,
        engine_sha256=hashlib.sha256(b"an engine").hexdigest(),
        flavor="tensorrt",
        version="11.0.0",
        compute_capabilities=("sm90",),
        gpu="NVIDIA H100",
        precision="fp16",
        ranges={"B": AxisRange(1, 8, 16), "T": AxisRange(2, 5, MAX_WORDS)},
        inputs=spec.inputs,
        outputs=spec.outputs,
        plugins=(),
        layers=3,
        size_bytes=9,
        build_seconds=0.1,
    )
    return replace(made, **changes)


def put(bundle: Bundle, made: EngineRecord, content: bytes = b"an engine") -> None:
    (bundle.path / FOLDER).mkdir(exist_ok=True)
    (bundle.path / FOLDER / f"{made.stem}.engine").write_bytes(content)
    if content != b"an engine":
        made = replace(made, engine_sha256=hashlib.sha256(content).hexdigest())
    (bundle.path / FOLDER / f"{made.stem}.json").write_bytes(made.to_json())


def test_engines_are_served_within_their_limits(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny", "retrieve"))
    for graph in bundle.manifest.graphs:
        put(bundle, record(bundle, graph))
    options = TritonOptions(backend="tensorrt", precision="fp16")
    for folder in export_triton(bundle.path, tmp_path / "repo", options):
        config = read_config(folder)
        assert config.platform == "tensorrt_plan"
        assert config.max_batch_size == 16
        assert (folder / "1" / "model.plan").read_bytes() == b"an engine"
        assert not config.cc_model_filenames
    assert list(config.model_warmup[0].inputs["token_ids"].dims) == [5]


def test_each_gpu_has_its_own_engine(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny", "retrieve"))
    for graph in bundle.manifest.graphs:
        put(bundle, record(bundle, graph))
        put(bundle, record(bundle, graph, compute_capabilities=("sm120",), gpu="NVIDIA RTX PRO 6000"), b"another one")
    for folder in export_triton(bundle.path, tmp_path / "repo", TritonOptions(backend="tensorrt", precision="fp16")):
        files = dict(read_config(folder).cc_model_filenames)
        assert files == {"9.0": "model.sm90.plan", "12.0": "model.sm120.plan"}
        assert (folder / "1" / files["9.0"]).read_bytes() == b"an engine"
        assert (folder / "1" / files["12.0"]).read_bytes() == b"another one"


def test_engines_of_one_model_must_be_alike(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny", "retrieve"))
    put(bundle, record(bundle, "video_encoder"))
    put(bundle, record(bundle, "video_encoder", compute_capabilities=("sm80",), ranges={"B": AxisRange(1, 2, 4)}))
    with pytest.raises(ExportError, match="engines of video_encoder for sm80, sm90 differ"):
        export_triton(bundle.path, tmp_path / "repo", TritonOptions(backend="tensorrt", precision="fp16"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp32"}, "has no engine of video_encoder in fp16.*hbi-export trt .* --precision fp16"),
        ({"graph_sha256": "0" * 64}, "has no engine of video_encoder in fp16"),
        ({"plugins": (PluginUse("TokenMerge", "1", "hbi"),)}, "TokenMerge.*which Triton does not have"),
        ({"engine_sha256": "0" * 64}, "was altered or damaged"),
        ({"ranges": {"B": AxisRange(4, 8, 16)}}, "takes at least 4 items.*--batch 1,8,16"),
    ],
)
def test_an_engine_that_triton_cannot_serve_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny", "retrieve"))
    put(bundle, record(bundle, "video_encoder", **changes))
    with pytest.raises((ExportError, EngineError), match=message):
        export_triton(bundle.path, tmp_path / "repo", TritonOptions(backend="tensorrt", precision="fp16"))
    assert not (tmp_path / "repo").exists()


def test_models_that_are_there_are_only_replaced_when_asked(bundle: Bundle, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    first, *_ = export_triton(bundle.path, repository)
    (repository / "another_model").mkdir()
    with pytest.raises(ExportError, match=f"{first.name}.* is there already; give --force"):
        export_triton(bundle.path, repository)
    export_triton(bundle.path, repository, TritonOptions(max_batch=3), force=True)
    assert read_config(first).max_batch_size == 3
    assert (repository / "another_model").is_dir()
    assert not list(repository.glob(".*"))


def test_a_graph_that_was_edited_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    file = bundle.path / bundle.manifest.graphs["text_encoder"].file
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="altered or damaged"):
        export_triton(bundle.path, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_the_command_names_the_models(bundle: Bundle, tmp_path: Path) -> None:
    done = run_main(main, "triton", bundle.path, "-o", tmp_path / "repo")
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        f"{bundle.manifest.name}_{graph}" for graph in bundle.manifest.graphs
    ]
    again = run_main(main, "triton", bundle.path, "-o", tmp_path / "repo")
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert again.stderr.count("\n") == 1
