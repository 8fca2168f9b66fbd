"""The command `hbi-infer caption`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hbi_infer.cli.captions import caption_target, kept_captions, write_captions
from hbi_infer.cli.inputs import (
    FolderOptions,
    as_given,
    end_with,
    find_clips,
    load_model,
    output_style,
    tell_unfamiliar,
)
from hbi_infer.cli.options import (
    AllFilesOption,
    BundleOption,
    CsvOption,
    DeviceOption,
    ExcludeOption,
    IndexOption,
    JsonOption,
    NoUpdateOption,
    RebuildOption,
    VerboseOption,
    WorkersOption,
)
from hbi_infer.options import Decoding
from hbi_infer.render import stdout


def caption(
    video: Annotated[Path, typer.Argument(metavar="VIDEO_OR_DIR", help="The video, or a folder of videos.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write a .jsonl, .csv, .srt or .vtt; else to the terminal."),
    ] = None,
    out_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="jsonl, csv, srt or vtt; else by --out's suffix.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what --out names.")] = False,
    beam_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=f"Candidates kept: {Decoding().beam_size}, or 1 with --nucleus."),
    ] = None,
    length_penalty: Annotated[
        float, typer.Option(metavar="P", min=0, help="0 favours short captions.")
    ] = Decoding().length_penalty,
    no_repeat_ngram: Annotated[
        int, typer.Option(metavar="N", min=0, help="No run of so many tokens occurs twice; 0 allows all.")
    ] = Decoding().no_repeat_ngram,
    nucleus: Annotated[
        float | None, typer.Option(metavar="P", help="Draw from the fewest tokens of this probability together.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Of the probabilities that --nucleus draws from.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Of what --nucleus draws.")] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="The most tokens of a caption.")
    ] = Decoding().max_tokens,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    no_update: NoUpdateOption = False,
    exclude: ExcludeOption = None,
    all_files: AllFilesOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Write a caption for each clip of a video, or of every video in a folder; what is new in it is indexed first.

    A video that is indexed is not decoded again. Captions are kept as they are written: interrupted, the same command
    goes on where it stopped. Subtitles of a folder go into another one, a file for each video. Without --out, into a
    pipe go tab-separated lines: file, clip, start and end in seconds, caption, its log-probability.

    \b
    hbi-infer caption samples/ --out captions.jsonl
    hbi-infer caption samples/ --out subtitles --format srt
    """  # noqa: D301
    from hbi_infer.index.store import VideoFault
    from hbi_infer.render import tables

    style = output_style(as_json, as_csv)
    target = caption_target(video, out, out_format, overwrite=force)
    if target and (as_json or as_csv):
        raise typer.BadParameter("--json and --csv are for the terminal; what --out names has a format of its own")
    if nucleus is None and (temperature is not None or seed is not None):
        raise typer.BadParameter("--temperature and --seed go with --nucleus")
    folder_options = FolderOptions(index_file, workers, rebuild, no_update, exclude, all_files, verbose).checked(video)
    default = Decoding()
    options = Decoding(
        max_tokens=max_tokens,
        beam_size=beam_size or (default.beam_size if nucleus is None else 1),
        length_penalty=length_penalty,
        no_repeat_ngram=no_repeat_ngram,
        nucleus=nucleus,
        temperature=default.temperature if temperature is None else temperature,
        seed=default.seed if seed is None else seed,
    )
    if target:
        target.check()
    hbi = load_model(bundle, device, verbose)
    hbi.bundle.require("caption")
    with kept_captions(hbi, target, options) as unfinished, find_clips(hbi, video, folder_options) as found:
        captions = write_captions(hbi, found.clips, options, unfinished)
        failures = list(found.failures)
        if target and unfinished:
            not_written = target.write(captions, as_given(video))
            if not not_written:
                unfinished.remove()
            num_written = sum(made.path not in not_written for made in captions)
            stdout.emit(f"{num_written} captions in {stdout.printable(str(target.out))}\n")
            folder = video.resolve()
            failures += [
                VideoFault(path.relative_to(folder).as_posix(), str(error), None) for path, error in not_written.items()
            ]
        elif style == "json":
            written = [made.to_json() for made in captions]
            stdout.emit_json(found.document | {"decoding": asdict(options), "captions": written})
        else:
            tables.show_written(captions, style, as_given(video))
        tell_unfamiliar(captions, "captions")
    end_with(failures, "captioned")
