"""Writes found moments as a timeline for video editors, through OpenTimelineIO."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbi_infer.errors import InputError, VideoError
from hbi_infer.files import write_whole
from hbi_infer.render.stdout import printable

if TYPE_CHECKING:
    from hbi_infer.tasks.search import Match

ADAPTERS = {
    ".otio": ("otio_json", "opentimelineio"),
    ".edl": ("cmx_3600", "otio_cmx3600_adapter"),
    ".fcpxml": ("fcpx_xml", "otio_fcpx_xml_adapter"),
}
"""Suffix of a timeline -> OpenTimelineIO's adapter, and the module that has it."""
ANOTHER_EDL = "another --edl"

_USUAL_RATES = tuple(
    Fraction(*rate)
    for rate in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1), (120, 1))
)
_TIMECODE_RATES = _USUAL_RATES[:-1]
"""Rates that a timecode may have."""
_REEL_LETTERS = 8
_UNKNOWN_REEL = "AX"
_FCPXML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n'
_SAME_RATE = 2e-4
_USUAL_RATE = Fraction(25)
"""Rate of a timeline whose first video is a single picture."""


def check_timeline(path: Path | str) -> None:
    """Refuses a timeline that could not be written, before there is anything to write.

    Raises:
        InputError: The format is not known, or a package that writes it is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in ADAPTERS:
        raise InputError(f"{path} is of no known format of timelines: give a name that ends in {', '.join(ADAPTERS)}")
    _, module = ADAPTERS[path.suffix.lower()]
    if not (find_spec("opentimelineio") and find_spec(module)):
        raise InputError(f'{path} needs OpenTimelineIO: install it with pip install "hbi-infer[timeline]"')


def write_timeline(
    answers: Sequence[tuple[str, Sequence[Match]]], path: Path | str, *, overwrite: bool
) -> dict[Path, VideoError]:
    """Writes the results of all queries, one after the other, as one track of a timeline.

    Each clip names its file by its address and its place by frames at the video's own rate. An .edl has one rate for
    all, that of the first video, or the nearest that timecodes have.

    Args:
        answers: Each query with its results.
        path: The file; its suffix names the format.
        overwrite: Whether a file that exists is replaced.

    Returns:
        Path of each video that could not be read, with why; they are left out.

    Raises:
        InputError: The format is not known, a package is missing, or the file cannot be written.
    """
    path = Path(path)
    check_timeline(path)
    import opentimelineio as otio

    track = otio.schema.Track(name="results", kind=otio.schema.TrackKind.Video)
    failed: dict[Path, VideoError] = {}
    for query, matches in answers:
        for match in matches:
            try:
                track.append(_clip(otio, query, match))
            except VideoError as error:
                failed[match.path] = error
    timeline = otio.schema.Timeline(name=printable("; ".join(query for query, _ in answers)))
    timeline.tracks.append(track)
    adapter, _ = ADAPTERS[path.suffix.lower()]
    write_whole(path, _content(otio, timeline, adapter).encode(), overwrite=overwrite, instead=ANOTHER_EDL)
    return failed


def _clip(otio: Any, query: str, match: Match) -> Any:
    rate, num_frames = _rate_and_frames(match)
    exact = float(rate)
    first = round(match.start_seconds * rate)
    length = max(1, round(match.end_seconds * rate) - first)
    media = otio.schema.ExternalReference(
        target_url=match.path.absolute().as_uri(),
        available_range=_range(otio, 0, max(num_frames, first + length), exact),
    )
    media.name = printable(match.path.name)
    return otio.schema.Clip(
        name=printable(match.path.name),
        media_reference=media,
        source_range=_range(otio, first, length, exact),
        metadata={"hbi_infer": {"query": query, "rank": match.rank, "score": match.score}},
    )


def _rate_and_frames(match: Match) -> tuple[Fraction, int]:
    """Returns the rate of a video in frames per second, and its number of frames at that rate."""
    from hbi_infer.video.reader import probe

    info = probe(match.path)
    rate = exact_rate(info.frames_per_second) if info.frames_per_second else _USUAL_RATE
    return rate, math.ceil((info.duration_seconds or 0) * rate)


def exact_rate(frames_per_second: float) -> Fraction:
    """Returns the usual rate that a measured one is, such as 30000/1001 for 29.97, or else a near fraction."""
    for rate in _USUAL_RATES:
        if abs(frames_per_second / rate - 1) < _SAME_RATE:
            return rate
    return Fraction(frames_per_second).limit_denominator(1001)


def timecode_rate(rate: Fraction) -> Fraction:
    """Returns the rate of timecodes in which a video's frames fall on whole ones, or else the nearest."""
    return min(_TIMECODE_RATES, key=lambda usual: (usual % rate != 0, abs(usual - rate)))


def _range(otio: Any, first: int, length: int, rate: float) -> Any:
    return otio.opentime.TimeRange(otio.opentime.RationalTime(first, rate), otio.opentime.RationalTime(length, rate))


def _content(otio: Any, timeline: Any, adapter: str) -> str:
    if adapter == "cmx_3600":
        return _cmx_3600(otio, timeline)
    text = str(otio.adapters.write_to_string(timeline, adapter))
    return _with_formats(text, timeline) if adapter == "fcpx_xml" else text


def _cmx_3600(otio: Any, timeline: Any) -> str:
    """Returns an edit decision list, in which every place counts frames at one rate."""
    clips = list(timeline.find_clips())
    first_rate = exact_rate(clips[0].source_range.start_time.rate) if clips else _USUAL_RATE
    rate = float(timecode_rate(first_rate))
    for clip in clips:
        clip.source_range = _at_rate(otio, clip.source_range, rate)
        clip.media_reference.available_range = _at_rate(otio, clip.media_reference.available_range, rate)
        # A blank in it would be taken for the end of the field.
        reel = re.sub("[^A-Za-z0-9]", "", Path(clip.name).stem)[:_REEL_LETTERS]
        clip.metadata["cmx_3600"] = {"reel": reel or _UNKNOWN_REEL}
    return str(otio.adapters.write_to_string(timeline, "cmx_3600", rate=rate))


def _with_formats(text: str, timeline: Any) -> str:
    """Gives each asset of a Final Cut timeline the exact rate of its video; the adapter knows only some rates."""
    rates = {
        clip.media_reference.target_url: exact_rate(clip.source_range.start_time.rate) for clip in timeline.find_clips()
    }
    root = ElementTree.fromstring(text)  # noqa: S314 - written here
    resources = root.find("resources")
    if resources is None:
        return text
    for known in resources.findall("format"):
        resources.remove(known)
    names = {rate: f"f{number}" for number, rate in enumerate(dict.fromkeys(rates.values()), start=1)}
    formats = {}
    for asset in resources.findall("asset"):
        asset.set("format", names[rates[asset.get("src", "")]])
        formats[asset.get("id")] = asset.get("format", "")
    for clip in root.iter("asset-clip"):
        clip.set("format", formats[clip.get("ref")])
    for sequence in root.iter("sequence"):
        sequence.set("format", next(iter(names.values())))
    for number, (rate, name) in enumerate(names.items()):
        length = f"{rate.denominator}/{rate.numerator}s"
        resources.insert(number, ElementTree.Element("format", {"id": name, "frameDuration": length}))
    ElementTree.indent(root)
    return f"{_FCPXML_HEAD}{ElementTree.tostring(root, encoding='unicode')}\n"


def _at_rate(otio: Any, place: Any, rate: float) -> Any:
    first = round(place.start_time.to_seconds() * rate)
    end = round(place.end_time_exclusive().to_seconds() * rate)
    return _range(otio, first, max(1, end - first), rate)
