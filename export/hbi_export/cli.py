"""`hbi-export`: turns trained models into bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hbi_infer.render.stdout import errors_told

MAX_DROP = 0.5
"""Points by which a metric of a release may fall."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Turn trained models into bundles for hbi-infer.")

Output = Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The bundle's folder.")]
Stored = Annotated[
    Literal["float32", "float16", "int8"],
    typer.Option("--weights", help="How weights are stored: float16 halves the size, int8 quarters it. Same speed."),
]
Samples = Annotated[Path | None, typer.Option(help="A folder of videos to check the video encoder on besides.")]
FramesPerSecond = Annotated[float, typer.Option(help="Frames taken for each second of video.")]
MaxFrames = Annotated[int, typer.Option(min=1, help="The most frames of a clip.")]
TestFormat = Annotated[str, typer.Option("--format", help="The format of the data set.")]
TestSplit = Annotated[str, typer.Option("--split", help="The split to measure on.")]
TestClips = Annotated[int | None, typer.Option("--num", min=1, help="Only the first so many clips of the split.")]
MaxDrop = Annotated[float, typer.Option(min=0, help="The most points by which R@1, answer accuracy or CIDEr may fall.")]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="DEVICE", help="As in hbi-infer; repeat it, or separate several by commas."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON document instead of a table.")]
ClipSeconds = Annotated[float, typer.Option(min=0.1, help="Longer videos are cut into clips of this length.")]


@app.callback()
def hbi_export() -> None:
    """Turn trained models into bundles for hbi-infer."""


@app.command()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="What hbi-train wrote: runs/NAME/model.")],
    output: Output,
    weights: Stored = "float32",
    samples: Samples = None,
    reranker: Annotated[
        bool,
        typer.Option(
            help="Put in the graph of 'retrieve --rerank'. A model whose objective had no reconstruction term has not "
            "learnt to compare pairs by it: leave it out."
        ),
    ] = True,
    clip_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Longer videos are cut into clips of this length.", show_default="that of the training"
        ),
    ] = None,
) -> None:
    """Export a checkpoint; every graph is checked against the model before anything is written.

    Example: hbi-export onnx runs/shapes/model -o shapes.bundle
    """
    from hbi_export.bundle import export_bundle
    from hbi_export.report import show_checks
    from hbi_training.weights.checkpoint import load_checkpoint

    given = load_checkpoint(checkpoint)
    checks = export_bundle(
        given, output, weights=weights, samples=samples, reranker=reranker, clip_seconds=clip_seconds
    )
    show_checks(checks, output)


@app.command()
def clip(
    source: Annotated[str, typer.Argument(metavar="NAME_OR_DIR", help="A CLIP on the hub, or a local folder.")],
    output: Output,
    weights: Stored = "float32",
    samples: Samples = None,
    frames_per_second: FramesPerSecond = 1.0,
    max_frames: MaxFrames = 12,
    clip_seconds: ClipSeconds = 12.0,
) -> None:
    """Export any CLIP model for zero-shot search, with no training.

    Example: hbi-export clip openai/clip-vit-base-patch32 -o clip-b32
    """
    from hbi_export.bundle import clip_checkpoint, export_bundle
    from hbi_export.report import show_checks
    from hbi_infer.options import FrameSampling

    sampling = FrameSampling(frames_per_second=frames_per_second, max_frames=max_frames, clip_seconds=clip_seconds)
    checkpoint = clip_checkpoint(source, sampling=sampling)
    show_checks(export_bundle(checkpoint, output, weights=weights, samples=samples), output)


@app.command()
def upstream(
    checkpoint: Annotated[Path, typer.Option(metavar="FILE", help="A released HBI model: a state dict.")],
    output: Output,
    clip: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CLIP's own ViT weights. Only needed for a checkpoint that lacks tensors of CLIP; the released ones "
            "hold all of them.",
        ),
    ] = None,
    task: Annotated[
        Literal["retrieval", "vqa"] | None, typer.Option(help="By default what the checkpoint was trained for.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="train_ans2label.json, which belongs to a vqa checkpoint.")
    ] = None,
    max_words: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="What the model was trained with: texts are padded to it, and that changes scores. By default 24 for "
            "retrieval and 32 for vqa, as in the published runs on MSR-VTT; ActivityNet and DiDeMo have 64.",
        ),
    ] = None,
    weights: Stored = "float32",
    samples: Samples = None,
    frames_per_second: FramesPerSecond = 1.0,
    max_frames: MaxFrames = 12,
    clip_seconds: ClipSeconds = 12.0,
) -> None:
    """Export the authors' released model, with the released code's behaviour: its scores are that code's.

    Files are read without running anything in them. ActivityNet's model takes --max-words 64 --max-frames 64.

    Example: hbi-export upstream --checkpoint hbi_msrvtt.pth -o hbi-msrvtt
    """
    from hbi_export.bundle import export_bundle
    from hbi_export.report import show_checks
    from hbi_export.upstream import load_upstream
    from hbi_infer.options import FrameSampling

    sampling = FrameSampling(frames_per_second=frames_per_second, max_frames=max_frames, clip_seconds=clip_seconds)
    released = load_upstream(checkpoint, clip=clip, task=task, answers=answers, max_words=max_words, sampling=sampling)
    for line in released.origins:
        typer.echo(line)
    show_checks(export_bundle(released.checkpoint, output, weights=weights, samples=samples), output)


@app.command()
def trt(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder; engines are put into it.")],
    flavor: Annotated[
        Literal["auto", "tensorrt", "rtx"],
        typer.Option(help="TensorRT, for the GPU that is here; or TensorRT-RTX, which needs none to build."),
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"], typer.Option(help="Of the products of matrices; all else is in float32.")
    ] = "fp32",
    batch: Annotated[str, typer.Option(metavar="LEAST,USUAL,MOST", help="Clips or texts at a time.")] = "1,8,64",
    gpu: Annotated[
        str, typer.Option(metavar="SM,SM", help="GPUs to build for, such as sm86,sm89; else the one that is here.")
    ] = "",
    plugins: Annotated[
        bool,
        typer.Option(
            help="Build the nodes of domain hbi with our CUDA kernels. Off by default: the kernels are right on a "
            "processor and compile for every GPU, but they have not yet run on one, and whether TensorRT-RTX runs "
            "plugins written in Python is unproven. Without them TensorRT makes kernels of the nodes' functions."
        ),
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Build nothing; say which engines can be used here.")] = False,
) -> None:
    """Build TensorRT engines of all graphs of a bundle, for --device tensorrt and tensorrt-rtx of hbi-infer.

    An engine belongs to one graph, one release of TensorRT and the GPUs that it was built for.

    Example: hbi-export trt clip-b32 --flavor rtx --precision fp16 --gpu sm86,sm89
    """
    from hbi_export.tensorrt import build as trt_build
    from hbi_export.tensorrt import report as trt_report

    if check:
        checks = trt_build.check_engines(bundle)
        trt_report.show_engine_checks(checks)
        raise typer.Exit(1 if any(engine.problem for engine in checks) else 0)
    options = trt_build.BuildOptions(
        flavor=flavor,
        precision=precision,
        batch=trt_build.batch_range(batch),
        gpus=tuple(gpu.split(",")) if gpu else (),
        plugins=plugins,
    )
    with trt_report.build_progress() as on_phase:
        records, failures = trt_build.build_engines(bundle, options, on_phase)
    if records:
        trt_report.show_records(records)
    for graph, reason in failures:
        typer.echo(f"error: {graph}: {reason}", err=True)
    raise typer.Exit(1 if failures else 0)


@app.command()
def triton(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPO", help="The model repository's folder.")],
    backend: Annotated[
        Literal["onnx", "tensorrt"], typer.Option(help="Serve the graphs, or engines that 'hbi-export trt' built.")
    ] = "onnx",
    precision: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Of those engines.")] = "fp32",
    max_batch: Annotated[int, typer.Option(min=1, help="The most clips or texts of one execution.")] = 64,
    instances: Annotated[int, typer.Option(min=1, help="Executions of a model at a time, on each GPU.")] = 1,
    queue_delay: Annotated[
        int, typer.Option(min=0, metavar="MICROSECONDS", help="How long a request waits for others.")
    ] = 500,
    force: Annotated[bool, typer.Option("--force", help="Replace models of the same names.")] = False,
) -> None:
    """Write a model repository for Triton Inference Server: a model for each graph, with dynamic batching.

    Requests share an execution where their shapes agree: pad texts to one length, which changes no result.

    Example: hbi-export triton clip-b32 -o models
    """
    from hbi_export.triton import TritonOptions, export_triton

    options = TritonOptions(
        backend=backend,
        precision=precision,
        max_batch=max_batch,
        instances=instances,
        max_queue_delay_microseconds=queue_delay,
    )
    for folder in export_triton(bundle, output, options, force=force):
        typer.echo(str(folder))


@app.command()
def quantize(
    bundle: Annotated[Path, typer.Argument(help="A bundle in float32.")],
    output: Output,
    precision: Annotated[
        Literal["fp16", "bf16", "int8"],
        typer.Option(
            help="fp16: for GPUs. bf16: for GPUs, and OpenVINO on processors that have it. int8: for processors."
        ),
    ],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Videos to measure the ranges of int8 on. Of a data set, its training split; without the texts of one "
            "the text encoder stays in float32.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A data set: refuse the bundle if it does worse on it.")
    ] = None,
    data_format: TestFormat = "manifest",
    split: TestSplit = "test",
    num: TestClips = None,
    max_drop: MaxDrop = MAX_DROP,
    device: Devices = None,
) -> None:
    """Write a bundle in another precision, if with --data it does as well as the one it is made of.

    Layers and attentions are in half precision, or the layers of the encoders in int8; norms, clustering and the exact
    interaction stay in float32.

    Example: hbi-export quantize my-model -o my-model-int8 --precision int8 --calibrate data/shapes --data data/shapes
    """
    from hbi_export.precision import report as precision_report
    from hbi_export.precision.calibration import read_calibration
    from hbi_export.precision.gate import CheckData
    from hbi_export.precision.quantize import Gate, gate_device, quantized_bundle, write_quantized
    from hbi_infer.model.bundle import Bundle

    source = Bundle.load(bundle)
    calibration = None
    if calibrate is not None and precision == "int8":
        calibration = read_calibration(calibrate, source, data_format=data_format)
    made = quantized_bundle(source, precision, calibration)
    gate = None
    if data is not None:
        test = CheckData(data, data_format, split, num)
        gate = Gate(test, _separated(device) or [gate_device(precision)], max_drop, precision_report.tell_side)
    report = write_quantized(made, source, output, gate)
    if report is not None:
        precision_report.show(report)
        report.require(f", {output} was not written")
    precision_report.show_written(made, output, report)


@app.command()
def check(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="What to check.")],
    against: Annotated[
        Path, typer.Option(metavar="BUNDLE_OR_CHECKPOINT", help="The reference, on the processor in float32.")
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="A data set of real clips.")],
    data_format: TestFormat = "manifest",
    split: TestSplit = "test",
    num: TestClips = None,
    max_drop: MaxDrop = MAX_DROP,
    device: Devices = None,
    as_json: AsJson = False,
) -> None:
    """Compare bundles, on each device, with the bundle or the checkpoint that they were made from.

    Every output of every graph is compared on real clips, and so is every task that both can do. Exits with 1 if R@1,
    answer accuracy or CIDEr fall too far.

    Example: hbi-export check my-model-int8 --against my-model --data data/shapes --num 200 --device cpu,openvino
    """
    from hbi_export.precision import report as precision_report
    from hbi_export.precision.compared_model import side_at
    from hbi_export.precision.gate import CheckData, compare_sides

    sides = [side_at(bundle, name) for bundle in bundles for name in _separated(device) or ["cpu"]]
    test = CheckData(data, data_format, split, num)
    report = compare_sides(side_at(against, "cpu"), sides, test, max_drop=max_drop, on_side=precision_report.tell_side)
    if as_json:
        precision_report.show_json(report)
    else:
        precision_report.show(report)
    report.require()


def _separated(values: list[str] | None) -> list[str]:
    return [part for value in values or [] for part in value.split(",") if part]


def main() -> None:
    """Run the command line."""
    with errors_told():
        app()
