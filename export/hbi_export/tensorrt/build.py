"""Builds TensorRT engines for every graph of a bundle, and checks those that are there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hbi_engines.cuda.driver import driver_problem, visible_gpus
from hbi_engines.engine import AxisRange
from hbi_engines.engine_files import FLAVORS, FOLDER, EngineRecord, Flavor, Target, read_engine
from hbi_engines.tensorrt.flavor import compute_capabilities, import_flavor
from hbi_export.options import BuildOptions
from hbi_export.tensorrt.worker import BuildJob, Built
from hbi_infer.errors import DeviceError, EngineError, ExportError, HBIError, InputError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.manifest import BundleManifest, GraphSpec
from hbi_infer.tokens.similarity import CLIPS_AT_A_TIME, TEXTS_AT_A_TIME
from hbi_infer.worker_process import WorkerDiedError, run_job

TIMING_CACHE = "timing.cache"


def batch_range(text: str) -> AxisRange:
    """Parses a range such as "1,8,64"; a single number stands for all three.

    Raises:
        InputError: The text is something else.
    """
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    sizes = sizes * 3 if len(sizes) == 1 else sizes
    if len(sizes) != 3 or sizes != sorted(sizes) or sizes[0] < 1:
        raise InputError(f"--batch is {text!r}; give the least, the usual and the most, such as 1,8,64")
    return AxisRange(*sizes)


def build_engines(
    path: Path | str, options: BuildOptions, on_phase: Callable[[str, str], None] = lambda _graph, _phase: None
) -> tuple[list[EngineRecord], list[tuple[str, str]]]:
    """Builds an engine of each graph into the bundle's folder. A build that fails does not stop the others.

    Args:
        path: The bundle's folder.
        options: Options of all builds.
        on_phase: Called with the graph and the phase that its build has entered.

    Returns:
        Records of the engines; graphs that failed, with the reason.

    Raises:
        BundleError: There is no bundle, or its files are not those that were exported.
        DeviceError: The flavour is not installed, or needs a GPU that is not here.
        InputError: A zip, or a GPU that cannot be built for.
    """
    path = Path(path)
    bundle = _unpacked(path)
    flavor = choose_flavor(options)
    gpus = _checked_gpus(flavor, options.gpus)
    (path / FOLDER).mkdir(exist_ok=True)
    records, failures = [], []
    for name, spec in bundle.manifest.graphs.items():
        try:
            job = BuildJob(
                flavor=flavor.device,
                precision=options.precision,
                inputs=spec.inputs,
                ranges=ranges_of(spec, options.batch, bundle.manifest),
                gpus=gpus if flavor.option == "rtx" else (),
                plugins=options.plugins,
                engine=path / FOLDER / f".{name}.part",
                timing_cache=path / FOLDER / TIMING_CACHE,
            )
            records.append(_build(bundle, name, job, gpus, partial(on_phase, name)))
        except ExportError as error:
            failures.append((name, str(error)))
    return records, failures


def choose_flavor(options: BuildOptions) -> Flavor:
    """Chooses the TensorRT to build with.

    Raises:
        DeviceError: It is not installed.
    """
    by_option = {flavor.option: flavor for flavor in FLAVORS.values()}
    if options.flavor != "auto":
        import_flavor(by_option[options.flavor])
        return by_option[options.flavor]
    problems = {flavor.option: _import_problem(flavor) for flavor in FLAVORS.values()}
    installed = [option for option, problem in problems.items() if not problem]
    if not installed:
        raise DeviceError(f"no TensorRT is installed: {'; or '.join(problems.values())}")
    needs_no_gpu = bool(options.gpus) or bool(driver_problem())
    return by_option["rtx" if needs_no_gpu and "rtx" in installed else installed[0]]


def ranges_of(spec: GraphSpec, batch: AxisRange, manifest: BundleManifest) -> dict[str, AxisRange]:
    """Returns the sizes of a graph's dynamic axes by their names: first axes are batches, others lengths."""
    max_words, max_frames = manifest.max_words, manifest.sampling.max_frames
    limits = {"text_length": (2, max_words), "num_before": (1, max_words - 1)}
    scored = {"num_texts": TEXTS_AT_A_TIME, "num_videos": CLIPS_AT_A_TIME}
    ranges = {}
    for tensor in spec.inputs:
        for place, name in enumerate(tensor.shape):
            if name == "num_frames":  # of as many clips, some of which may have a single frame
                ranges[name] = AxisRange(1, batch.usual * max_frames, batch.most * max_frames)
            elif name in scored:
                ranges[name] = AxisRange(1, min(batch.usual, scored[name]), scored[name])
            elif isinstance(name, str):
                least, most = limits.get(name, (1, max_words))
                ranges[name] = AxisRange(least, (least + most) // 2, most) if place else batch
    return ranges


@dataclass(frozen=True)
class EngineCheck:
    """Result of checking whether an engine can be used here.

    Attributes:
        file: Name of its record, or of an engine that has none.
        record: Its record; None where that cannot be read.
        problem: Reason why the engine cannot be used; empty if it can.
    """

    file: str
    record: EngineRecord | None
    problem: str


def check_engines(path: Path | str) -> list[EngineCheck]:
    """Compares every engine in a bundle's folder with its record, the bundle's graphs, and what is installed here.

    Raises:
        BundleError: There is no bundle.
        InputError: It is a zip, or has no engines.
    """
    path = Path(path)
    bundle = _unpacked(path)
    files = sorted((path / FOLDER).glob("*.json")) if (path / FOLDER).is_dir() else []
    orphans = [file for file in sorted((path / FOLDER).glob("*.engine")) if file.with_suffix(".json") not in files]
    if not files and not orphans:
        raise InputError(f"{path} has no engines: build some with 'hbi-export trt {path}'")
    checks = []
    for file in files:
        try:
            record = EngineRecord.read(file)
        except EngineError as error:
            checks.append(EngineCheck(file.name, None, str(error)))
            continue
        checks.append(EngineCheck(file.name, record, _problem(bundle, file, record)))
    return checks + [EngineCheck(file.name, None, "it has no record: remove it") for file in orphans]


def _problem(bundle: Bundle, file: Path, record: EngineRecord) -> str:
    if record.graph not in bundle.manifest.graphs:
        return f"the bundle has no graph {record.graph}"
    if (flavor := FLAVORS.get(record.flavor)) is None:
        return f"it was built with {record.flavor}, which this version does not know"
    try:
        version = import_flavor(flavor).__version__
        read_engine(file.with_suffix(".engine"), record)
    except EngineError as error:
        return str(error)
    gpu = next(iter(visible_gpus()), None)
    target = Target(flavor, version, record.precision, gpu)
    return record.mismatch(bundle.manifest.graphs[record.graph].sha256, target)


def _unpacked(path: Path) -> Bundle:
    bundle = Bundle.load(path)
    if path.is_file():
        raise InputError(f"{path} is a zip; engines lie in a bundle's folder: unpack it and give the folder")
    return bundle


def _import_problem(flavor: Flavor) -> str:
    try:
        import_flavor(flavor)
    except DeviceError as error:
        return str(error)
    return ""


def _checked_gpus(flavor: Flavor, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the compute capabilities that an engine will be for."""
    here = visible_gpus()
    if flavor.option != "rtx":
        if asked:
            raise InputError(
                f"{flavor.device} builds for the GPU that is here alone: leave out --gpu, or take --flavor rtx, "
                f"which is for {FLAVORS['tensorrt-rtx'].suits}"
            )
        if problem := driver_problem():
            raise DeviceError(f"{flavor.device} tries its kernels on the GPU that it builds for: {problem}")
        return (here[0].compute_capability,)
    known = compute_capabilities(import_flavor(flavor))
    if not asked and not here:
        raise InputError(f"there is no GPU here: say which to build for, with --gpu and some of {','.join(known)}")
    gpus = asked or (here[0].compute_capability,)
    if unknown := [gpu for gpu in gpus if gpu not in known]:
        raise InputError(
            f"{flavor.device} cannot build for {', '.join(unknown)}, only for {', '.join(known)}; for other GPUs there "
            "is --flavor tensorrt"
        )
    return tuple(dict.fromkeys(gpus))


def _build(
    bundle: Bundle, name: str, job: BuildJob, gpus: tuple[str, ...], on_phase: Callable[[str], None]
) -> EngineRecord:
    """Builds one engine and moves it and its record into place."""
    content = bundle.graph_bytes(name)
    spec = bundle.manifest.graphs[name]
    started = time.perf_counter()
    try:
        built = run_worker(job, content, on_phase)
        engine = job.engine.read_bytes()
        record = EngineRecord(
            graph=name,
            graph_sha256=hashlib.sha256(content).hexdigest(),
            engine_sha256=hashlib.sha256(engine).hexdigest(),
            flavor=job.flavor,
            version=built.version,
            compute_capabilities=gpus,
            gpu="" if job.gpus else visible_gpus()[0].name,
            precision=job.precision,
            ranges=job.ranges,
            inputs=spec.inputs,
            outputs=spec.outputs,
            plugins=built.plugins,
            layers=built.layers,
            size_bytes=len(engine),
            build_seconds=round(time.perf_counter() - started, 3),
        )
        # The record goes first and comes last, so that none ever stands beside another engine.
        target = job.engine.with_name(f"{record.stem}.json")
        target.unlink(missing_ok=True)
        job.engine.rename(target.with_suffix(".engine"))
        job.engine.write_bytes(record.to_json())
        job.engine.rename(target)
    except OSError as error:
        raise ExportError(f"cannot write into {job.engine.parent} ({error.strerror}): free space there") from error
    finally:
        job.engine.unlink(missing_ok=True)
    return record


def run_worker(job: BuildJob, content: bytes, on_phase: Callable[[str], None]) -> Built:
    """Has a process of its own build an engine; it writes `job.engine`.

    Raises:
        ExportError: It could not; says why as far as that process could.
    """
    try:
        built = run_job(
            "hbi_export.tensorrt.worker", job.to_document(), content, on_part=lambda part: on_phase(part["phase"])
        )
    except WorkerDiedError as died:
        raise ExportError(f"{job.flavor} died {died}") from died
    except HBIError as error:
        raise ExportError(str(error)) from error
    return Built.from_document(built)
