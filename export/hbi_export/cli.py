"""`hbi-export`: turns trained models into bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hbi_export.options import BATCH, MAX_DROP, WEIGHTS, BuildOptions, CheckData, TritonOptions
from hbi_infer.options import FrameSampling
from hbi_infer.render.stdout import bugs_told, emit, errors_told, note, printable
from hbi_infer.render.usage import PrintableGroup

app = typer.Typer(
    cls=PrintableGroup,
    no_args_is_help=True,
    add_completion=False,
    help="Turn trained models into bundles for hbi-infer.",
)

Output = Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder of the new bundle.")]
Stored = Annotated[
    Literal["float32", "float16", "int8"],
    typer.Option("--weights", help="Format of stored weights: float16 halves the size, int8 quarters it. Same speed."),
]
Samples = Annotated[Path | None, typer.Option(help="Folder of videos to check the video encoder on besides.")]
FramesPerSecond = Annotated[float, typer.Option(help="Frames taken from each second of video.")]
MaxFrames = Annotated[int, typer.Option(min=1, help="Largest number of frames of a clip.")]
TrainingData = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data set of the training, to describe it in the bundle; see describe."),
]
TrainingFormat = Annotated[str, typer.Option("--format", help="Format of the data set.")]
TestFormat = Annotated[str, typer.Option("--format", help="Format of the data set.")]
TestSplit = Annotated[str, typer.Option("--split", help="Split to measure on.")]
TestClips = Annotated[
    int | None, typer.Option("--num", min=1, help="Number of clips, the first ones of the split; by default all.")
]
MaxDrop = Annotated[float, typer.Option(min=0, help="Points by which R@1, answer accuracy or CIDEr may fall.")]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="DEVICE", help="Device, as in hbi-infer; repeat it, or separate them by commas."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON document instead of a table.")]
MergeTokens = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="R",
        help="Merge R similar patches away in each layer of the frame encoder: quicker, and a little coarser. "
        "'hbi-export check' measures what is lost.",
    ),
]
ClipSeconds = Annotated[float, typer.Option(min=0.1, help="Length of the clips that longer videos are cut into.")]


@app.callback()
def hbi_export() -> None:
    """Turn trained models into bundles for hbi-infer."""


@app.command()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint that hbi-train wrote: runs/NAME/model.")],
    output: Output,
    weights: Stored = WEIGHTS,
    samples: Samples = None,
    reranker: Annotated[
        bool,
        typer.Option(
            help="Include the graph of 'retrieve --rerank'. Leave it out for a model whose objective had no "
            "reconstruction term: it has not learnt to compare pairs so."
        ),
    ] = True,
    clip_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Length of the clips that longer videos are cut into.", show_default="that of the training"
        ),
    ] = None,
    merge_tokens: MergeTokens = 0,
    data: TrainingData = None,
    data_format: TrainingFormat = "manifest",
) -> None:
    """Export a checkpoint; every graph is checked against the model before anything is written.

    Example: hbi-export onnx runs/shapes/model -o shapes.bundle
    """
    from hbi_export.bundle import export_bundle
    from hbi_export.report import show_checks
    from hbi_training.weights.checkpoint import load_checkpoint

    given = load_checkpoint(checkpoint)
    checks = export_bundle(
        given,
        output,
        weights=weights,
        samples=samples,
        reranker=reranker,
        clip_seconds=clip_seconds,
        merge_tokens=merge_tokens,
    )
    if data is not None:
        from hbi_export.training_world import add_training

        add_training(output, data, data_format=data_format)
    show_checks(checks, output)


@app.command()
def describe(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle; two files are put into it.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data set that the model was trained on.")],
    data_format: TrainingFormat = "manifest",
) -> None:
    """Add to a bundle what the clips and texts of its training are like; its graphs stay as they are.

    hbi-infer then compares a query with texts of that kind, and marks clips that are unlike all that the model knows.

    Example: hbi-export describe my-model --data data/shapes
    """
    from hbi_export.training_world import add_training

    add_training(bundle, data, data_format=data_format)
    emit(f"{printable(str(bundle))} knows its training data now: an index of it must be made anew\n")


@app.command()
def clip(
    source: Annotated[
        str, typer.Argument(metavar="NAME_OR_DIR", help="CLIP, OpenCLIP or SigLIP on the hub, or in a local folder.")
    ],
    output: Output,
    weights: Stored = WEIGHTS,
    frames_per_second: FramesPerSecond = FrameSampling.frames_per_second,
    max_frames: MaxFrames = FrameSampling.max_frames,
    clip_seconds: ClipSeconds = FrameSampling.clip_seconds,
    merge_tokens: MergeTokens = 0,
) -> None:
    """Export any CLIP or SigLIP for zero-shot search, with no training and without PyTorch.

    Example: hbi-export clip openai/clip-vit-base-patch32 -o clip-b32
    """
    from hbi_export.clip import export_clip
    from hbi_infer.model.bundle import Bundle

    sampling = FrameSampling(frames_per_second=frames_per_second, max_frames=max_frames, clip_seconds=clip_seconds)
    export_clip(
        source,
        output,
        sampling=sampling,
        weights=weights,
        merge_tokens=merge_tokens,
        say=lambda line: note("note", line),
    )
    emit(f"{printable(str(output))}: {sum(Bundle.load(output).sizes_bytes().values()) / 1e6:.1f} MB\n")


@app.command()
def upstream(
    checkpoint: Annotated[Path, typer.Option(metavar="FILE", help="Released HBI model: a state dict.")],
    output: Output,
    clip: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CLIP's own ViT weights, for a checkpoint that lacks tensors of CLIP; the released ones hold all of "
            "them.",
        ),
    ] = None,
    task: Annotated[
        Literal["retrieval", "vqa"] | None,
        typer.Option(help="Task; by default the one that the checkpoint was trained for."),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="List of answers of a vqa checkpoint: train_ans2label.json.")
    ] = None,
    max_words: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of tokens that texts are padded to, as in the training, for it changes scores. By default 24 "
            "for retrieval and 32 for vqa, as in the published runs on MSR-VTT; ActivityNet and DiDeMo have 64.",
        ),
    ] = None,
    weights: Stored = WEIGHTS,
    samples: Samples = None,
    frames_per_second: FramesPerSecond = FrameSampling.frames_per_second,
    max_frames: MaxFrames = FrameSampling.max_frames,
    clip_seconds: ClipSeconds = FrameSampling.clip_seconds,
) -> None:
    """Export the authors' released model. It gives the scores of the released code.

    Nothing in the files is executed. ActivityNet's model takes --max-words 64 --max-frames 64.

    Example: hbi-export upstream --checkpoint hbi_msrvtt.pth -o hbi-msrvtt
    """
    from hbi_export.bundle import export_bundle
    from hbi_export.report import show_checks
    from hbi_export.upstream import load_upstream

    sampling = FrameSampling(frames_per_second=frames_per_second, max_frames=max_frames, clip_seconds=clip_seconds)
    released = load_upstream(checkpoint, clip=clip, task=task, answers=answers, max_words=max_words, sampling=sampling)
    for line in released.origins:
        emit(f"{printable(line)}\n")
    show_checks(export_bundle(released.checkpoint, output, weights=weights, samples=samples), output)


@app.command()
def trt(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle; engines are put into it.")],
    flavor: Annotated[
        Literal["auto", "tensorrt", "rtx"],
        typer.Option(help="TensorRT, for the GPU that is here; or TensorRT-RTX, which needs none to build."),
    ] = BuildOptions.flavor,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"],
        typer.Option(help="Precision of the products of matrices; all else is in float32."),
    ] = BuildOptions.precision,
    batch: Annotated[
        str, typer.Option(metavar="LEAST,USUAL,MOST", help="Number of items, such as texts, at a time.")
    ] = f"{BATCH.least},{BATCH.usual},{BATCH.most}",
    gpu: Annotated[
        str,
        typer.Option(metavar="SM,SM", help="GPUs to build for, such as sm86,sm89; by default the one here."),
    ] = "",
    plugins: Annotated[
        bool,
        typer.Option(
            help="Build the nodes of domain hbi with our CUDA kernels. Off by default: the kernels are right on a "
            "processor and compile for every GPU, but they have not yet run on one, and whether TensorRT-RTX runs "
            "plugins written in Python is unproven. Without them TensorRT makes kernels of the nodes' functions."
        ),
    ] = BuildOptions.plugins,
    check: Annotated[bool, typer.Option("--check", help="Build nothing; print which engines are usable here.")] = False,
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
    options = BuildOptions(
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
        note("error", f"{graph}: {reason}")
    raise typer.Exit(1 if failures else 0)


@app.command()
def triton(
    bundle: Annotated[Path, typer.Argument(help="Bundle to serve.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="REPO", help="Folder of the model repository.")],
    backend: Annotated[
        Literal["onnx", "tensorrt"], typer.Option(help="Serve the graphs, or engines that 'hbi-export trt' built.")
    ] = TritonOptions.backend,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"], typer.Option(help="Precision of those engines.")
    ] = TritonOptions.precision,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Largest number of items, such as texts, of one execution.")
    ] = TritonOptions.max_batch,
    instances: Annotated[
        int, typer.Option(min=1, help="Executions of a model at a time, on each GPU.")
    ] = TritonOptions.instances,
    queue_delay: Annotated[
        int, typer.Option(min=0, metavar="MICROSECONDS", help="Time for which a request waits for others.")
    ] = TritonOptions.max_queue_delay_microseconds,
    force: Annotated[bool, typer.Option("--force", help="Replace models of the same names.")] = False,
) -> None:
    """Write a model repository for Triton Inference Server: a model for each graph, with dynamic batching.

    Requests share an execution where their shapes agree: pad texts to one length, which changes no result.

    Example: hbi-export triton clip-b32 -o models
    """
    from hbi_export.triton import export_triton

    options = TritonOptions(
        backend=backend,
        precision=precision,
        max_batch=max_batch,
        instances=instances,
        max_queue_delay_microseconds=queue_delay,
    )
    for folder in export_triton(bundle, output, options, force=force):
        emit(f"{printable(str(folder))}\n")


@app.command()
def quantize(
    bundle: Annotated[Path, typer.Argument(help="Bundle in float32.")],
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
            help="Videos to measure the ranges of int8 on, or a data set, whose training split is taken. Without the "
            "texts of a data set the text encoder stays in float32.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Data set: refuse the bundle if it does worse on it.")
    ] = None,
    data_format: TestFormat = CheckData.data_format,
    split: TestSplit = CheckData.split,
    num: TestClips = CheckData.num,
    max_drop: MaxDrop = MAX_DROP,
    device: Devices = None,
) -> None:
    """Write a bundle in another precision. With --data it must do as well as the bundle it is made of.

    Layers and attentions are in half precision, or the layers of the encoders in int8; norms, clustering and the exact
    interaction stay in float32.

    Example: hbi-export quantize my-model -o my-model-int8 --precision int8 --calibrate data/shapes --data data/shapes
    """
    from hbi_export.precision import report as precision_report
    from hbi_export.precision.calibration import read_calibration
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
        gate = Gate(test, _separated(device) or [gate_device(precision)], max_drop, precision_report.tell_model)
    report = write_quantized(made, source, output, gate)
    if report is not None:
        precision_report.show(report)
        report.require(f", {output} was not written")
    precision_report.show_written(made, output, report)


@app.command()
def check(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles to check.")],
    against: Annotated[
        Path, typer.Option(metavar="BUNDLE_OR_CHECKPOINT", help="Reference, which runs on the processor in float32.")
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data set of real clips.")],
    data_format: TestFormat = CheckData.data_format,
    split: TestSplit = CheckData.split,
    num: TestClips = CheckData.num,
    max_drop: MaxDrop = MAX_DROP,
    device: Devices = None,
    as_json: AsJson = False,
) -> None:
    """Compare bundles, on each device, with the bundle or the checkpoint that they were made from.

    Compares every output of every graph, and every task that both can do, on real clips. Exits with 1 if R@1, answer
    accuracy or CIDEr fall too far.

    Example: hbi-export check my-model-int8 --against my-model --data data/shapes --num 200 --device cpu,openvino
    """
    from hbi_export.precision import report as precision_report
    from hbi_export.precision.compared_model import model_at
    from hbi_export.precision.gate import compare_models

    models = [model_at(bundle, name) for bundle in bundles for name in _separated(device) or ["cpu"]]
    report = compare_models(
        model_at(against, "cpu"),
        models,
        CheckData(data, data_format, split, num),
        max_drop=max_drop,
        on_model=precision_report.tell_model,
    )
    if as_json:
        precision_report.show_json(report)
    else:
        precision_report.show(report)
    report.require()


def _separated(values: list[str] | None) -> list[str]:
    return [part for value in values or [] for part in value.split(",") if part]


def main() -> None:
    """Run the command line."""
    with bugs_told(), errors_told():
        app()
