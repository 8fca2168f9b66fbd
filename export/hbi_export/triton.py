"""Writes a bundle as a model repository of Triton Inference Server: a model for each graph.

    REPO/shapes.bundle.json, shapes.tokenizer.json          files for clients: sampling, words, answers
    REPO/shapes_clip_encoder/config.pbtxt                  inputs, outputs, and how requests are batched
    REPO/shapes_clip_encoder/1/model.onnx or model.plan    or model.sm80.plan, model.sm90.plan for several GPUs

Facts about the format: Triton's user guide ("Model Repository", "Model Configuration") and its model_config.proto.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbi_engines.engine import AxisRange, TensorSpec
from hbi_engines.engine_files import FLAVORS, FOLDER, BuiltEngines, EngineRecord, read_engine
from hbi_engines.half_products import Precision
from hbi_export.options import TritonOptions
from hbi_export.tensorrt.build import ranges_of
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle

DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
}
PLATFORMS = {"onnx": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class Served:
    """Files, inputs and outputs of a model.

    Attributes:
        files: Triton's file names -> bytes, checked against their hashes.
        inputs: Inputs of the graph.
        outputs: Outputs of the graph.
        batch: Items at a time; None where the inputs have no number of items in common, and nothing can be batched.
        ranges: Name of a dynamic axis -> its sizes.
        file_of_gpu: Compute capability, as Triton writes it -> the file for such a GPU, where there are several.
    """

    files: Mapping[str, bytes]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: AxisRange | None
    ranges: Mapping[str, AxisRange]
    file_of_gpu: Mapping[str, str] = field(default_factory=dict)


def export_triton(
    path: Path | str, repository: Path | str, options: TritonOptions | None = None, *, force: bool = False
) -> list[Path]:
    """Writes a bundle's models into a repository; models of other names stay as they are.

    Args:
        path: The bundle.
        repository: Folder of the repository, made if it is not there.
        options: Options of serving.
        force: Whether models of the same names are replaced.

    Returns:
        Folders of the models.

    Raises:
        BundleError: A file of the bundle is missing, damaged or another one.
        ExportError: A model is there already, an engine is missing, or the repository cannot be written.
    """
    path = Path(path)
    repository = Path(repository)
    options = options or TritonOptions()
    bundle = Bundle.load(path)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", bundle.manifest.name)
    folders = {graph: repository / f"{name}_{graph}" for graph in bundle.manifest.graphs}
    if there := [str(folder) for folder in folders.values() if folder.exists() and not force]:
        raise ExportError(f"{', '.join(there)} is there already; give --force to replace it, or another -o REPO")
    served = {graph: _served(bundle, graph, options) for graph in folders}
    about = {"bundle.json": bundle.manifest.to_json(), "tokenizer.json": bundle.tokenizer_json().encode()}
    sha256 = hashlib.sha256(about["bundle.json"]).hexdigest()
    try:
        for graph, folder in folders.items():
            _write_model(folder, served[graph], model_config(folder.name, served[graph], options, sha256))
        for file, content in about.items():
            partial = repository / f".{name}.{file}"
            partial.write_bytes(content)
            partial.rename(repository / f"{name}.{file}")
    except OSError as error:
        raise ExportError(f"cannot write into {repository} ({error.strerror}): choose another folder") from error
    return list(folders.values())


def _served(bundle: Bundle, graph: str, options: TritonOptions) -> Served:
    spec = bundle.manifest.graphs[graph]
    content = bundle.graph_bytes(graph)
    if options.backend == "onnx":
        ranges = ranges_of(spec, AxisRange(1, 1, options.max_batch), bundle.manifest)
        batch = _batch(spec.inputs, ranges, options.max_batch)
        return Served(
            files={"model.onnx": content}, inputs=spec.inputs, outputs=spec.outputs, batch=batch, ranges=ranges
        )
    engines = _engines(bundle, graph, options.precision)
    record = next(iter(engines.values()))
    batch = _batch(record.inputs, record.ranges, options.max_batch)
    if batch and batch.least > 1:
        raise ExportError(
            f"the engine of {graph} takes at least {batch.least} items, and Triton runs single requests: build it "
            f"again with 'hbi-export trt' and --batch 1,{batch.usual},{batch.most}"
        )
    several = len(engines) > 1
    names = {sm: f"model.{sm}.plan" if several else "model.plan" for sm in engines}
    return Served(
        files={names[sm]: read_engine(_file(bundle, made), made) for sm, made in engines.items()},
        inputs=record.inputs,
        outputs=record.outputs,
        batch=batch,
        ranges=record.ranges,
        file_of_gpu={f"{sm[2:-1]}.{sm[-1]}": name for sm, name in names.items()} if several else {},
    )


def _batch(inputs: Sequence[TensorSpec], ranges: Mapping[str, AxisRange], max_batch: int) -> AxisRange | None:
    """Returns the range of the first axis that all inputs share: how many items go through together."""
    first, *others = {tensor.shape[0] for tensor in inputs}
    if others or not isinstance(first, str):
        return None
    own = ranges[first]
    return AxisRange(own.least, min(own.usual, max_batch), min(own.most, max_batch))


def _engines(bundle: Bundle, graph: str, precision: Precision) -> dict[str, EngineRecord]:
    """Finds the engines of a graph that Triton's TensorRT can load, by compute capability."""
    flavor = FLAVORS["tensorrt"]
    sha256 = bundle.manifest.graphs[graph].sha256
    found = [EngineRecord.read(file) for file in BuiltEngines(bundle.path, graph).records(flavor)]
    fitting = [record for record in found if record.graph_sha256 == sha256 and record.precision == precision]
    if not fitting:
        raise ExportError(
            f"{bundle.path} has no engine of {graph} in {precision}: on the server's GPU and with the TensorRT of its "
            f"Triton run: hbi-export trt {bundle.path} --flavor {flavor.option} --precision {precision}"
        )
    for record in fitting:
        if record.plugins:
            raise ExportError(
                f"{record.stem}.engine needs plugins ({', '.join(map(str, record.plugins))}), which Triton does not "
                "have: build it again without them"
            )
    if len({record.version for record in fitting}) > 1 or any(r.ranges != fitting[0].ranges for r in fitting):
        raise ExportError(
            f"the engines of {graph} for {', '.join(r.compute_capabilities[0] for r in fitting)} differ in their "
            "TensorRT or in the sizes that they take, and a model has one of each: build them alike, or remove some"
        )
    return {record.compute_capabilities[0]: record for record in fitting}


def _file(bundle: Bundle, record: EngineRecord) -> Path:
    return bundle.path / FOLDER / f"{record.stem}.engine"


def _write_model(folder: Path, served: Served, config: str) -> None:
    """Writes a model so that it appears under its name when it is whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / VERSION).mkdir(parents=True)
    for file, content in served.files.items():
        (partial / VERSION / file).write_bytes(content)
    (partial / "config.pbtxt").write_text(config)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def model_config(name: str, served: Served, options: TritonOptions, bundle_sha256: str) -> str:
    """Returns the text of config.pbtxt.

    Triton lets requests share an execution where their shapes agree but for the batch. Texts are therefore best padded
    to one length, which changes no output.

    Args:
        name: Name of the model and of its folder.
        served: Files, inputs and outputs of the model.
        options: Options of serving.
        bundle_sha256: Hash of the bundle.json beside the models, by which a client sees that its words belong to them.
    """
    batched = served.batch is not None
    warm = [
        {"key": tensor.name, "value": {"data_type": _data_type(tensor), "dims": dims, "zero_data": True}}
        for tensor, dims in zip(served.inputs, _warm_up_dims(served), strict=True)
    ]
    fields = {
        "name": name,
        "platform": PLATFORMS[options.backend],
        "max_batch_size": served.batch.most if served.batch else 0,
        "input": [_tensor(tensor, batched=batched) for tensor in served.inputs],
        "output": [_tensor(tensor, batched=batched) for tensor in served.outputs],
        "instance_group": [{"count": options.instances, "kind": _Word("KIND_AUTO")}],
        # The first execution on a GPU is slow: Triton reports a model as ready only after it.
        "model_warmup": [{"name": "one item of zeros", "batch_size": 1, "inputs": warm}],
        "parameters": {"key": "bundle_sha256", "value": {"string_value": bundle_sha256}},
        "cc_model_filenames": [{"key": gpu, "value": file} for gpu, file in served.file_of_gpu.items()],
    }
    if batched:
        fields["dynamic_batching"] = {"max_queue_delay_microseconds": options.max_queue_delay_microseconds}
    return _pbtxt({key: value for key, value in fields.items() if value != []})


class _Word(str):
    """Name of an enumeration, which is written without quotes."""


def _data_type(tensor: TensorSpec) -> _Word:
    if tensor.dtype not in DATA_TYPES:
        raise ExportError(f"{tensor} is of a type that Triton does not know; it knows {', '.join(DATA_TYPES)}")
    return _Word(DATA_TYPES[tensor.dtype])


def _tensor(tensor: TensorSpec, *, batched: bool) -> dict[str, Any]:
    """Describes an input or output; a single number for each item is [1] in a request and [] in the graph."""
    dims = [size if isinstance(size, int) else -1 for size in tensor.shape[batched:]]
    described = {"name": tensor.name, "data_type": _data_type(tensor), "dims": dims or [1]}
    return described if dims else {**described, "reshape": {"shape": []}}


def _warm_up_dims(served: Served) -> list[list[int]]:
    without_batch = served.batch is not None
    return [
        [size if isinstance(size, int) else served.ranges[size].usual for size in tensor.shape[without_batch:]] or [1]
        for tensor in served.inputs
    ]


def _pbtxt(fields: dict[str, Any], depth: int = 0) -> str:
    """Writes fields in the text format of protocol buffers."""
    lines = []
    indent = "  " * depth
    for name, value in fields.items():
        if isinstance(value, list) and (not value or isinstance(value[0], int)):
            lines.append(f"{indent}{name}: [{', '.join(map(str, value))}]")
            continue
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(one, dict):
                lines.append(f"{indent}{name} {{\n{_pbtxt(one, depth + 1)}{indent}}}")
            elif isinstance(one, _Word) or not isinstance(one, str):
                lines.append(f"{indent}{name}: {str(one).lower() if isinstance(one, bool) else one}")
            else:
                lines.append(f"{indent}{name}: {json.dumps(one)}")
    return "".join(f"{line}\n" for line in lines)
