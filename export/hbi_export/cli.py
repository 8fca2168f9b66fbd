"""`hbi-export`: turns trained models into bundles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hbi_infer.errors import HBIError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Turn trained models into bundles for hbi-infer.")

Output = Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The bundle's folder.")]
Half = Annotated[bool, typer.Option("--half-weights", help="Store weights as float16: half the size.")]
Samples = Annotated[Path | None, typer.Option(help="A folder of videos to check the video encoder on besides.")]
FramesPerSecond = Annotated[float, typer.Option(help="Frames taken for each second of video.")]
MaxFrames = Annotated[int, typer.Option(min=1, help="The most frames of a clip.")]
ClipSeconds = Annotated[float, typer.Option(help="Longer videos are cut into clips of this length.")]


@app.callback()
def hbi_export() -> None:
    """Turn trained models into bundles for hbi-infer."""


@app.command()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="What hbi-train wrote: runs/NAME/model.")],
    output: Output,
    half_weights: Half = False,
    samples: Samples = None,
) -> None:
    """Export a checkpoint; every graph is checked against the model before anything is written.

    Example: hbi-export onnx runs/shapes/model -o shapes.bundle
    """
    from hbi_export.bundle import export_bundle
    from hbi_export.report import show_checks
    from hbi_training.checkpoint import load_checkpoint

    show_checks(export_bundle(load_checkpoint(checkpoint), output, half_weights=half_weights, samples=samples), output)


@app.command()
def clip(
    source: Annotated[str, typer.Argument(metavar="NAME_OR_DIR", help="A CLIP on the hub, or a local folder.")],
    output: Output,
    half_weights: Half = False,
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
    show_checks(export_bundle(checkpoint, output, half_weights=half_weights, samples=samples), output)


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
    half_weights: Half = False,
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
    checks = export_bundle(
        released.checkpoint,
        output,
        answer_head=released.answer_head,
        answers=released.answers,
        half_weights=half_weights,
        samples=samples,
    )
    show_checks(checks, output)


def main() -> None:
    """Entry point: errors of ours become one line and exit code 1."""
    try:
        app()
    except HBIError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
