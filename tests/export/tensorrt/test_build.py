"""Engines built by the real TensorRT-RTX, which needs no GPU to build, and the check of what was built."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hbi_engines.cuda.driver import GPU, driver_problem, visible_gpus
from hbi_engines.engine import AxisRange, TensorSpec
from hbi_engines.engine_files import FLAVORS, FOLDER, BuiltEngines, EngineRecord, Target, read_engine
from hbi_engines.half_products import Precision
from hbi_engines.registry import open_engine
from hbi_engines.tensorrt.flavor import import_flavor
from hbi_export.cli import main
from hbi_export.options import BuildOptions
from hbi_export.tensorrt import build as trt_build
from hbi_export.tensorrt.build import batch_range, build_engines, check_engines, ranges_of, run_worker
from hbi_export.tensorrt.graph import for_tensorrt, nodes_with_plugins
from hbi_export.tensorrt.worker import BuildJob
from hbi_infer.errors import BundleError, DeviceError, ExportError, InputError
from hbi_infer.model.bundle import Bundle, default_bundle_path, write_bundle
from hbi_infer.tokens.similarity import CLIPS_AT_A_TIME, TEXTS_AT_A_TIME
from tests.builders.in_process import run_main
from tests.builders.tiny_bundle import (
    make_graph,
    tiny_graphs,
    tiny_manifest,
    tokenizer_json,
    write_part_of_embedded,
    write_tiny_bundle,
)

RTX = FLAVORS["tensorrt-rtx"]
ADA = GPU("NVIDIA RTX 4090", "sm89", 24 * 2**30)
NEEDS_NO_GPU = BuildOptions(flavor="rtx", gpus=("sm89",))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `hbi-export trt` with stdout and stderr into pipes."""
    return run_main(main, "trt", *arguments)


@pytest.mark.parametrize(("precision", "plugins"), [("fp32", False), ("fp16", False), ("fp16", True)])
@pytest.mark.parametrize("graph", Bundle.load(default_bundle_path()).manifest.graphs)
def test_every_graph_of_the_embedded_bundle_builds(
    tmp_path: Path, graph: str, precision: Precision, plugins: bool
) -> None:
    bundle = write_part_of_embedded(tmp_path / "bundle", graph).path
    phases: list[tuple[str, str]] = []
    options = dataclasses.replace(NEEDS_NO_GPU, precision=precision, plugins=plugins)
    (record,), failures = build_engines(bundle, options, lambda *phase: phases.append(phase))
    assert not failures
    assert (graph, "Building engine") in phases
    manifest = Bundle.load(bundle).manifest
    spec = manifest.graphs[graph]
    version = import_flavor(RTX).__version__
    assert (record.graph_sha256, record.version, record.precision) == (spec.sha256, version, precision)
    assert (record.compute_capabilities, record.gpu) == (("sm89",), "")
    wanted = nodes_with_plugins(Bundle.load(bundle).graph_bytes(graph)) if plugins else set()
    assert {plugin.name for plugin in record.plugins} == wanted
    assert (record.inputs, record.outputs) == (spec.inputs, spec.outputs)
    assert record.ranges.keys() == {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}
    if graph == "similarity":  # its texts and videos have numbers of their own
        assert record.ranges["num_texts"] == AxisRange(1, 8, TEXTS_AT_A_TIME)
        assert record.ranges["num_videos"] == AxisRange(1, 8, CLIPS_AT_A_TIME)
    else:
        assert record.ranges["batch"] == AxisRange(1, 8, 64)
    if graph == "text_encoder":
        assert record.ranges["text_length"] == AxisRange(2, 19, manifest.max_words)
    assert record.layers > (5 if plugins else 50)
    assert record.build_seconds > 0
    path, found = BuiltEngines(bundle, graph).find(spec.sha256, Target(RTX, version, precision, ADA))
    assert found == record
    assert len(read_engine(path, found)) == record.size_bytes == path.stat().st_size
    assert {file.name for file in (bundle / FOLDER).iterdir()} == {f"{record.stem}.engine", f"{record.stem}.json"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with an engine of each graph."""
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("built") / "tiny")
    records, failures = build_engines(bundle, NEEDS_NO_GPU)
    assert [record.graph for record in records] == list(tiny_graphs())
    assert not failures
    return bundle


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The same bundle, to be changed."""
    subprocess.run(["cp", "-r", built, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def test_the_command_builds_and_checks(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    arguments = ("--flavor", "rtx", "--gpu", "sm86,sm89", "--precision", "bf16", "--batch", "1,2,4")
    done = run(bundle, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["building video_encoder", "building text_encoder"]
    for expected in ("video_encoder", "text_encoder", f"tensorrt-rtx {import_flavor(RTX).__version__}", "sm86, sm89"):
        assert expected in done.stdout
    records = [EngineRecord.read(path) for path in sorted((bundle / FOLDER).glob("*.json"))]
    assert [record.stem for record in records] == [
        f"{graph}.tensorrt-rtx.bf16.sm86-sm89" for graph in ("text_encoder", "video_encoder")
    ]
    assert records[1].ranges == {"B": AxisRange(1, 2, 4)}
    checked = run(bundle, "--check")
    if visible_gpus():
        return  # the engines may be foreign here
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.count("yes") == 2


def test_a_rebuild_takes_the_place_of_what_was_there(copy: Path) -> None:
    before = sorted(path.name for path in (copy / FOLDER).iterdir())
    record = next((copy / FOLDER).glob("*.json"))
    record.write_text("damaged")
    build_engines(copy, NEEDS_NO_GPU)
    assert sorted(path.name for path in (copy / FOLDER).iterdir()) == before
    assert EngineRecord.read(record).version == import_flavor(RTX).__version__


def change_version(folder: Path) -> None:
    (path,) = folder.glob("video_encoder.*.json")
    path.write_text(path.read_text().replace(import_flavor(RTX).__version__, "1.0.0.1"))


def swap_engines(folder: Path) -> None:
    (one,), (other,) = folder.glob("video_encoder.*.engine"), folder.glob("text_encoder.*.engine")
    one.write_bytes(other.read_bytes())


def remove_engine(folder: Path) -> None:
    next(folder.glob("video_encoder.*.engine")).unlink()


def remove_record(folder: Path) -> None:
    next(folder.glob("video_encoder.*.json")).unlink()


def rename_graph(folder: Path) -> None:
    (path,) = folder.glob("video_encoder.*.json")
    path.write_text(path.read_text().replace('"graph": "video_encoder"', '"graph": "none"'))


def other_flavor(folder: Path) -> None:
    (path,) = folder.glob("video_encoder.*.json")
    path.write_text(path.read_text().replace('"tensorrt-rtx"', '"tensorrt-extra"'))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_version, "it was built with tensorrt-rtx 1.0.0.1; installed is "),
        (swap_engines, "was altered or damaged (sha256 "),
        (remove_engine, "cannot be read (No such file or directory): build it again"),
        (remove_record, "it has no record: remove it"),
        (rename_graph, "the bundle has no graph none"),
        (other_flavor, "it was built with tensorrt-extra, which this version does not know"),
    ],
)
@pytest.mark.skipif(bool(visible_gpus()), reason="engines for sm89 may be foreign to the GPU here")
def test_stale_and_foreign_engines_are_found(copy: Path, change: object, reason: str) -> None:
    assert [check.problem for check in check_engines(copy)] == ["", ""]
    change(copy / FOLDER)  # type: ignore[operator]
    (problem,) = (check.problem for check in check_engines(copy) if check.problem)
    assert reason in problem
    done = run(copy, "--check")
    assert done.returncode == 1
    assert "no" in done.stdout


def test_engines_of_a_bundle_that_was_exported_anew_are_stale(built: Path, tmp_path: Path) -> None:
    """Exporting replaces the folder; engines that somebody copies back are of the old graphs."""
    graphs = tiny_graphs()
    model = onnx.load_from_string(graphs["video_encoder"])
    model.producer_name = "another"
    write_bundle(
        tmp_path / "new",
        tiny_manifest(),
        {**graphs, "video_encoder": model.SerializeToString()},
        tokenizer_json(),
    )
    subprocess.run(["cp", "-r", built / FOLDER, tmp_path / "new"], check=True)
    problems = {check.record.graph: check.problem for check in check_engines(tmp_path / "new") if check.record}
    assert "it was built of another video_encoder (sha256 " in problems["video_encoder"]
    new = Bundle.load(tmp_path / "new")
    target = Target(RTX, import_flavor(RTX).__version__, "fp32", ADA)
    with pytest.raises(DeviceError, match=r"it was built of another video_encoder .*; build one with: hbi-export trt"):
        BuiltEngines(new.path, "video_encoder").find(new.manifest.graphs["video_encoder"].sha256, target)


def test_an_edited_graph_is_not_built(copy: Path) -> None:
    (copy / "video_encoder.onnx").write_bytes(tiny_graphs()["text_encoder"])
    with pytest.raises(BundleError, match="was altered or damaged"):
        build_engines(copy, NEEDS_NO_GPU)


def test_a_graph_that_fails_costs_no_other(tmp_path: Path) -> None:
    """The first graph has an operator that no runtime knows."""
    nodes = [helper.make_node("Unheard", ["x"], ["y"], domain="hbi", name="unheard")]
    spec = TensorSpec("x", "float32", ("B", 2))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("hbi", 1)]
    unknown = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    manifest = tiny_manifest()
    extra = dataclasses.replace(
        manifest.graphs["text_encoder"],
        file="extra.onnx",
        inputs=(spec,),
        outputs=(TensorSpec("y", "float32", ("B", 2)),),
    )
    manifest = dataclasses.replace(manifest, graphs={"extra": extra, **manifest.graphs})
    write_bundle(tmp_path / "b", manifest, {"extra": unknown, **tiny_graphs()}, tokenizer_json())
    done = run(tmp_path / "b", "--flavor", "rtx", "--gpu", "sm120")
    assert done.returncode == 1
    assert "error: extra: tensorrt-rtx cannot read the graph: Unheard unheard: " in done.stderr
    assert len(list((tmp_path / "b" / FOLDER).glob("*.engine"))) == 2


def test_gpus_that_cannot_be_built_for(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with pytest.raises(InputError, match=r"tensorrt-rtx cannot build for sm90, only for sm75, .*; for other GPUs"):
        build_engines(bundle, BuildOptions(flavor="rtx", gpus=("sm90",)))
    if not visible_gpus():
        with pytest.raises(InputError, match="there is no GPU here: say which to build for, with --gpu and some of sm"):
            build_engines(bundle, BuildOptions(flavor="rtx"))
    _, failures = build_engines(bundle, BuildOptions(flavor="rtx", gpus=("sm75",)))
    assert failures[0][0] == "video_encoder"
    assert "FP32 GEMM is not supported" in failures[0][1]


def test_a_zip_and_a_folder_without_engines(copy: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "zipfile", "-c", tmp_path / "b.zip", copy], check=True)
    for call in (check_engines, lambda path: build_engines(path, NEEDS_NO_GPU)):
        with pytest.raises(InputError, match=r"is a zip; engines lie in a bundle's folder: unpack it"):
            call(tmp_path / "b.zip")
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with pytest.raises(InputError, match="has no engines: build some with 'hbi-export trt"):
        check_engines(bundle)


def test_the_flavor_that_is_installed_is_chosen() -> None:
    absent = [flavor for flavor in FLAVORS.values() if trt_build._import_problem(flavor)]
    assert trt_build.choose_flavor(BuildOptions(gpus=("sm89",))) == RTX
    for flavor in absent:
        with pytest.raises(DeviceError, match=f"{flavor.module} cannot be imported"):
            trt_build.choose_flavor(BuildOptions(flavor=flavor.option))  # type: ignore[arg-type]
    if not absent:
        assert trt_build._checked_gpus(RTX, ("sm89", "sm89")) == ("sm89",)


@pytest.mark.parametrize("text", ["", "a", "0", "8,1,64", "1,8", "1,2,3,4", "1,,2", "-1,1,1"])
def test_a_batch_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--batch is .*; give the least, the usual and the most, such as 1,8,64"):
        batch_range(text)


def test_batches_and_lengths() -> None:
    assert batch_range("4") == AxisRange(4, 4, 4)
    assert batch_range("1,8,64") == BuildOptions().batch == AxisRange(1, 8, 64)
    spec = dataclasses.replace(
        tiny_manifest().graphs["text_encoder"],
        inputs=(
            TensorSpec("ids", "int64", ("batch", "text_length")),
            TensorSpec("keys", "float32", ("batch", 2, 4, "num_before", 8)),
            TensorSpec("more", "float32", ("batch", "other")),
            TensorSpec("frames", "uint8", ("num_frames", 16, 16, 3)),
        ),
    )
    manifest = dataclasses.replace(tiny_manifest(), max_words=20)
    assert ranges_of(spec, AxisRange(1, 2, 3), manifest) == {
        "batch": AxisRange(1, 2, 3),
        "num_frames": AxisRange(1, 2 * 4, 3 * 4),
        "text_length": AxisRange(2, 11, 20),
        "num_before": AxisRange(1, 10, 19),
        "other": AxisRange(1, 10, 20),
    }


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    return BuildJob(
        flavor="tensorrt-rtx",
        precision="fp32",
        inputs=tiny_manifest().graphs["video_encoder"].inputs,
        ranges={"B": AxisRange(1, 2, 4)},
        gpus=("sm89",),
        plugins=False,
        engine=tmp_path / "engine",
        timing_cache=tmp_path / "cache",
    )


def test_a_builder_that_dies_is_reported(job: BuildJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the place of TensorRT's, whose import ends the process, as a clash of libraries does."""
    (tmp_path / "site" / "tensorrt_rtx").mkdir(parents=True)
    (tmp_path / "site" / "tensorrt_rtx" / "__init__.py").write_text(
        "import os, sys\nsys.stderr.write('two libraries of one name\\n')\nsys.stderr.flush()\nos.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(ExportError, match="tensorrt-rtx died of SIGABRT: two libraries of one name"):
        run_worker(job, tiny_graphs()["video_encoder"], lambda _phase: None)


def test_a_damaged_graph_is_an_error_of_one_line(job: BuildJob) -> None:
    with pytest.raises(ExportError, match=r"^cannot read the graph: .*; export the bundle again$"):
        run_worker(job, tiny_graphs()["video_encoder"][:200], lambda _phase: None)


def test_weights_stored_as_whole_numbers_build(job: BuildJob) -> None:
    """TensorRT takes an int8 constant for a quantised one, unless its cast has been done."""
    nodes = [
        helper.make_node("Cast", ["whole"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["weight"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ]
    whole = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    scale = np.full((1, 4), 0.5, np.float32)
    x, y = TensorSpec("x", "float32", ("B", 4)), TensorSpec("y", "float32", ("B", 4))
    content = make_graph(nodes, [x], [y], {"whole": whole, "scale": scale})
    built = run_worker(dataclasses.replace(job, inputs=(x,), precision="fp16"), content, lambda _phase: None)
    assert built.layers > 1
    assert job.engine.stat().st_size > 1000
    values = np.eye(4, dtype=np.float32)
    results = [open_engine(graph, "cpu").run({"x": values})["y"] for graph in (content, for_tensorrt(content, "fp32"))]
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(results[0], whole * scale)


def test_bytes_are_cast_before_anything_else() -> None:
    """The graph computes the same; TensorRT changes no shape of a uint8."""
    bundle = Bundle.load(default_bundle_path())
    content = bundle.graph_bytes("video_encoder")
    changed = for_tensorrt(content, "fp32")
    model = onnx.load_from_string(changed)
    onnx.checker.check_model(model, full_check=True)
    readers = [node.op_type for node in model.graph.node if "frames" in node.input]
    assert readers == ["Cast"]
    sampling = bundle.manifest.sampling
    size = sampling.image_size
    frames = np.random.default_rng(0).integers(0, 256, (2, sampling.max_frames, size, size, 3), dtype=np.uint8)
    inputs = {"frames": frames, "frame_mask": np.ones((2, sampling.max_frames), np.bool_)}
    before, after = (open_engine(graph, "cpu", threads=1).run(inputs) for graph in (content, changed))
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.gpu
def test_tensorrt_builds_for_the_gpu_that_is_here(tmp_path: Path) -> None:
    from tests.builders.gpu import require_gpu

    flavor = FLAVORS["tensorrt"]
    require_gpu(trt_build._import_problem(flavor) or driver_problem())
    bundle = write_tiny_bundle(tmp_path / "tiny")
    records, failures = build_engines(bundle, BuildOptions(flavor="tensorrt"))
    assert not failures
    assert {record.gpu for record in records} == {visible_gpus()[0].name}
    assert (bundle / FOLDER / trt_build.TIMING_CACHE).stat().st_size > 0
    with pytest.raises(InputError, match="tensorrt builds for the GPU that is here alone: leave out --gpu"):
        build_engines(bundle, BuildOptions(flavor="tensorrt", gpus=("sm89",)))
