"""Writing captions so that an interrupted command can go on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hbi_infer.render import stdout
from hbi_infer.render.progress import progress_bar

if TYPE_CHECKING:
    from hbi_infer.api import HBI
    from hbi_infer.index.clip_tokens import Clips
    from hbi_infer.options import Decoding
    from hbi_infer.render.caption_file import CaptionTarget, UnfinishedCaptions
    from hbi_infer.tasks.caption import Caption


def caption_target(video: Path, out: Path | None, named: str | None, *, overwrite: bool) -> CaptionTarget | None:
    """Returns the files that the captions go to; None for the terminal."""
    from hbi_infer.render.caption_file import FORMATS, CaptionTarget

    if out is None:
        if named or overwrite:
            raise typer.BadParameter("--format and --force go with --out")
        return None
    wanted = named or out.suffix.lower().removeprefix(".")
    for known in FORMATS:
        if wanted == known:
            return CaptionTarget(videos=video, out=out, format=known, overwrite=overwrite)
    given = f"--format is {named}" if named else f"--out is {out}, which does not end in a format"
    raise typer.BadParameter(f"{given}; name one of {', '.join(FORMATS)}")


@contextmanager
def kept_captions(hbi: HBI, target: CaptionTarget | None, options: Decoding) -> Iterator[UnfinishedCaptions | None]:
    """Yields the captions that an earlier run left, and keeps those that are added."""
    from hbi_infer.render.caption_file import UnfinishedCaptions, run_header

    if target is None:
        yield None
        return
    header = run_header(hbi.bundle.sha256, target.videos, options)
    with UnfinishedCaptions(target.partial, header, overwrite=target.overwrite) as unfinished:
        if unfinished.captions:
            stdout.note("note", f"going on after {len(unfinished.captions)} captions in {unfinished.path}")
        yield unfinished


def write_captions(hbi: HBI, clips: Clips, options: Decoding, unfinished: UnfinishedCaptions | None) -> list[Caption]:
    """Writes a caption for each of N clips; each new one is kept at once, and those of an earlier run are reused."""
    from hbi_infer.tasks.caption import caption_clips

    captions: list[Caption] = []
    num_new = 0
    known = unfinished.captions if unfinished else {}
    with progress_bar("captioning", "clips") as show:
        for clip, made in caption_clips(hbi, clips, options, known=known):
            if clip not in known:
                num_new += 1
                if unfinished:
                    unfinished.add(clip, made)
            captions.append(made)
            show(len(captions), len(clips.places), num_new)
    return captions
