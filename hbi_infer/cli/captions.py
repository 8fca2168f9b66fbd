"""What `hbi-infer caption` does between its options and its results; what it writes is kept if it stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hbi_infer.render import stdout
from hbi_infer.render.progress import progress_bar

if TYPE_CHECKING:
    from hbi_infer.index.clip_tokens import Clips
    from hbi_infer.model.token_model import HBI
    from hbi_infer.options import Decoding
    from hbi_infer.render.caption_file import CaptionTarget, UnfinishedCaptions
    from hbi_infer.tasks.caption import Caption


def caption_target(video: Path, out: Path | None, named: str | None, *, overwrite: bool) -> CaptionTarget | None:
    """Where the captions go; None is the terminal."""
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
    """What an earlier run left, ready to be gone on with."""
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
    """Every caption, those that were written before among them; each is kept as soon as it is there."""
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
