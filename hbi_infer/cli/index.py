"""The command `hbi-infer index`."""

from pathlib import Path
from typing import Annotated

import typer

from hbi_infer.cli.inputs import (
    FolderOptions,
    end_with,
    failures_of,
    index_document,
    load_model,
    update_index,
    verify_index,
)
from hbi_infer.cli.options import (
    AllFilesOption,
    BundleOption,
    DeviceOption,
    ExcludeOption,
    IndexOption,
    JsonOption,
    RebuildOption,
    VerboseOption,
    WorkersOption,
)
from hbi_infer.cli.watching import watch_folder
from hbi_infer.render import stdout


def index(
    videos: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of videos.")],
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    exclude: ExcludeOption = None,
    all_files: AllFilesOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again files that failed before.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all that is indexed, and mend what is damaged from the videos.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on as files come and go, until Ctrl-C; a line for each change.")
    ] = False,
    poll: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="With --watch: how often to look, as on a network drive."),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Index a folder of videos, or bring its index up to date.

    Only new and changed files are read. It can be interrupted at any time: what was indexed is kept. With --verify
    the whole index is read first; what is damaged in it is indexed anew. A renamed or moved file is not read again.

    \b
    hbi-infer index ~/Videos
    """  # noqa: D301
    from hbi_infer.api import Index
    from hbi_infer.render import tables

    if verify and rebuild:
        raise typer.BadParameter("--verify mends what is indexed and --rebuild throws it away: give one of them")
    options = FolderOptions(index_file, workers, rebuild, exclude=exclude, all_files=all_files, verbose=verbose)
    if watch and (verify or retry_failed):
        raise typer.BadParameter("--verify and --retry-failed are done once and --watch goes on: run them before it")
    if poll is not None and not watch:
        raise typer.BadParameter("--poll says how often --watch looks: give both")
    if watch:
        watch_folder(videos, bundle, device, options, poll_seconds=poll, as_json=as_json)
        return
    hbi = load_model(bundle, device, verbose)
    found = verify_index(hbi, videos, index_file) if verify else None
    with Index.open(videos, hbi, location=index_file, rebuild=rebuild) as opened:
        report = update_index(opened, options, retry_failed=retry_failed, tell_others=True)
        failures = failures_of(opened, report)
        if found:
            known = opened.store.ledger()
            failures += [fault for fault in found.damaged if fault.path not in known]
        if as_json:
            stdout.emit_json(index_document(opened, report) | ({"verified": found.to_json()} if found else {}))
        else:
            tables.show_update(report, opened.store.num_clips(), opened.store.path)
    end_with(failures, "searched")
