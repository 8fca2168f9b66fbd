"""The command `hbi-infer bench`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hbi_infer.bench.plan import Plan
from hbi_infer.cli.inputs import SOME_FAILED, as_list, find_bundle, whole_numbers
from hbi_infer.cli.options import (
    BundleOption,
)
from hbi_infer.errors import InputError
from hbi_infer.files import write_whole
from hbi_infer.render import stdout


def bench(
    bundle: BundleOption = None,
    random: Annotated[
        str | None, typer.Option(metavar="SIZE", help="A made-up model of this size: vit-b-32 or vit-b-16.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The bundle's model as hbi-train wrote it, for PyTorch.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICES", help="cpu,openvino,torch,torch:compile...; may be repeated. By default what can run."
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar="N,N", help="Numbers of items that go through a graph together.")
    ] = ",".join(map(str, Plan.batches)),
    stage: Annotated[
        list[str] | None, typer.Option(metavar="STAGES", help="Only these, such as 'encode,text encode'.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long each measurement takes.")] = Plan.seconds,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of the processor.")] = None,
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="Videos to decode; else some are drawn.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to it.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture, as PNG.")] = None,
) -> None:
    """Measure how fast a model runs on several devices, stage by stage, and whether they give the same.

    Each device runs in a process of its own. Exit code 3 if one could not run or gives wrong tokens; the table says so.

    \b
    hbi-infer bench --random vit-b-32 --device cpu,openvino,torch --batch 1,4 --plot speed.png
    """  # noqa: D301
    from hbi_infer.bench import report as bench_report
    from hbi_infer.bench.run import run

    bench_report.check_targets(json_file, plot)
    plan = Plan(
        devices=as_list(device),
        batches=whole_numbers(batch, "--batch"),
        seconds=seconds,
        threads=threads,
        videos=videos,
        stages=as_list(stage) or Plan.stages,
    )
    path, checkpoint = _benched_model(bundle, random, checkpoint)
    plan = replace(plan, bundle=path, checkpoint=checkpoint)
    report = run(plan, "hbi_export.pytorch.bench_worker", bench_report.show_progress)
    if json_file:
        bench_report.write_json(report, json_file)
    if plot:
        from hbi_infer.bench.picture import picture

        write_whole(plot, picture(report), overwrite=True)
    stdout.emit(bench_report.to_text(report))
    raise typer.Exit(SOME_FAILED if bench_report.unreliable(report) else 0)


def _benched_model(bundle: str | None, random: str | None, checkpoint: Path | None) -> tuple[Path, Path | None]:
    """The bundle and the checkpoint to measure, made where random ones are asked for."""
    if random is None:
        return find_bundle(bundle), checkpoint
    if bundle or checkpoint:
        raise typer.BadParameter("--random makes a bundle and a checkpoint of its own: leave --bundle and --checkpoint")
    try:
        from hbi_export.random_bundle import random_model
    except ImportError as error:
        raise InputError(
            f'--random makes a model with PyTorch, and {error.name} is not installed: pip install "hbi-infer[export]"'
        ) from error
    return random_model(random, lambda text: stdout.note("note", text))
