"""Damages real video files in many ways, the same ones for the same seed, and says what decoding them must keep to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbi_infer.options import FrameSampling
from hbi_infer.video.decoded_video import Clip, DecodedVideo
from hbi_infer.video.pool import decode_many
from tests.builders.video_files import FORMATS, write_video
from tests.paths import ROOT

SAMPLING = FrameSampling(frames_per_second=5, max_frames=6, image_size=32, clip_seconds=1)
TIMEOUT_SECONDS = 20.0
SLACK_SECONDS = 1e-6
EDGE_BYTES = 4096
"""Size of the beginning and the end of a file, where most headers and indexes lie."""
ABSURD = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Mutation:
    """A damaged file.

    Attributes:
        container: Its kind: a key of `FORMATS`, or the suffix of a sample.
        how: Name of the kind of damage.
        path: The file.
    """

    container: str
    how: str
    path: Path


def write_originals(folder: Path) -> dict[str, list[bytes]]:
    """Makes a short video of each kind, and takes the samples; container -> contents."""
    contents: dict[str, list[bytes]] = {}
    for kind, form in FORMATS.items():
        path = folder / f"original-{kind}{form.suffix}"
        with_audio = form.audio_codec is not None
        write_video(path, kind, num_frames=40, width=96, height=64, moving=True, with_audio=with_audio)
        contents[kind] = [path.read_bytes()]
    for path in sorted((ROOT / "samples").iterdir()):
        if path.suffix[1:] in FORMATS:
            contents[path.suffix[1:]].append(path.read_bytes())
    return contents


def write_mutations(folder: Path, count: int, seed: int) -> Iterator[Mutation]:
    """Writes damaged files, of each container in turn and damaged in each way in turn."""
    originals = write_originals(folder)
    kinds, ways = list(originals), list(WAYS)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind, how = kinds[number % len(kinds)], ways[number // len(kinds) % len(ways)]
        content = bytearray(originals[kind][int(rng.integers(len(originals[kind])))])
        damaged = WAYS[how](content, rng)
        path = folder / f"{number:06}-{how}{FORMATS[kind].suffix}"
        path.write_bytes(damaged)
        yield Mutation(kind, how, path)


def outcomes(mutations: Iterable[Mutation], *, workers: int = 2) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Decodes damaged files.

    Returns:
        Number of files by container and outcome ("ok", "partial: damaged", ...); and what was wrong with any result.
    """
    by_path = {mutation.path: mutation for mutation in mutations}
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for video in decode_many(list(by_path), SAMPLING, workers=workers, timeout_seconds=TIMEOUT_SECONDS):
        mutation = by_path.pop(video.path)
        outcome = video.status if video.problem is None else f"{video.status}: {video.problem}"
        counts[mutation.container, outcome] += 1
        wrong += [f"{video.path.name}: {fault}" for fault in faults_of(video)]
    wrong += [f"{path.name}: is missing" for path in by_path]
    return counts, wrong


def faults_of(video: DecodedVideo) -> Iterator[str]:
    """Says in what a result is not what a result has to be, whatever the file was."""
    if (video.status == "ok") != (video.reason == "") or (video.status == "ok") != (video.problem is None):
        yield f"status {video.status}, reason {video.reason!r}, problem {video.problem}"
    if (video.status == "failed") != (not video.clips) or (video.info is None) != (not video.clips):
        yield f"status {video.status} with {len(video.clips)} clips and {video.info}"
    if video.decode_seconds > TIMEOUT_SECONDS:
        yield f"took {video.decode_seconds} s"
    if video.info is None:
        return
    duration = video.info.duration_seconds
    if duration is not None and not 0 < duration < np.inf:
        yield f"duration {duration}"
    starts = [clip.start_seconds for clip in video.clips]
    if starts != sorted(set(starts)):
        yield f"clips that start at {starts}"
    for clip in video.clips:
        yield from _faults_of_clip(clip, np.inf if duration is None else duration)


def _faults_of_clip(clip: Clip, duration_seconds: float) -> Iterator[str]:
    """Says in what a clip is not what a clip has to be."""
    start, end, times = clip.start_seconds, clip.end_seconds, clip.timestamps_seconds[clip.mask]
    if not 0 <= start < end <= duration_seconds + SLACK_SECONDS or not np.isfinite(end):
        yield f"a clip from {start} to {end} of {duration_seconds} s"
    if not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        yield f"times {times}"
    elif times[0] < start - 0.05 or times[-1] > end + SLACK_SECONDS:
        yield f"times {times} in a clip from {start} to {end}"
    if clip.mask.tolist() != sorted(clip.mask.tolist(), reverse=True) or clip.frames[~clip.mask].any():
        yield "pictures where the mask has none"
    if not clip.frames[clip.mask].any(axis=(1, 2, 3)).all():  # no original has a black picture
        yield "a picture that was not set"


def _flip_bits(content: bytearray, rng: np.random.Generator) -> bytes:
    for at in rng.integers(0, len(content), int(2 ** rng.uniform(0, 8))):
        content[at] ^= 1 << int(rng.integers(8))
    return bytes(content)


def _flip_header_bits(content: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(2 ** rng.uniform(0, 6))):
        content[_edge(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(content)


def _truncate(content: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(content[: int(rng.integers(1, len(content)))])


def _behead(content: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(content[int(rng.integers(1, min(len(content), EDGE_BYTES))) :])


def _swap_blocks(content: bytearray, rng: np.random.Generator) -> bytes:
    size, one, other = _span(content, rng), _at(content, rng), _at(content, rng)
    content[one : one + size], content[other : other + size] = (
        content[other : other + size],
        content[one : one + size],
    )
    return bytes(content)


def _repeat_block(content: bytearray, rng: np.random.Generator) -> bytes:
    at, size = _at(content, rng), _span(content, rng)
    return bytes(content[: at + size] + content[at : at + size] * int(rng.integers(1, 50)) + content[at + size :])


def _overwrite_block(content: bytearray, rng: np.random.Generator) -> bytes:
    at, size = _at(content, rng), _span(content, rng)
    fill = [bytes(size), b"\xff" * size, rng.bytes(size)][int(rng.integers(3))]
    content[at : at + size] = fill
    return bytes(content)


def _insert_noise(content: bytearray, rng: np.random.Generator) -> bytes:
    at = _at(content, rng)
    return bytes(content[:at] + rng.bytes(_span(content, rng)) + content[at:])


def _absurd_numbers(content: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        at, size = _edge(content, rng), (1, 2, 4, 8)[int(rng.integers(4))]
        number = ABSURD[int(rng.integers(len(ABSURD)))] % 256**size
        content[at : at + size] = number.to_bytes(size, ("big", "little")[int(rng.integers(2))])
    return bytes(content)


WAYS: dict[str, Callable[[bytearray, np.random.Generator], bytes]] = {
    "flipped": _flip_bits,
    "flipped-header": _flip_header_bits,
    "absurd-numbers": _absurd_numbers,
    "truncated": _truncate,
    "beheaded": _behead,
    "swapped": _swap_blocks,
    "repeated": _repeat_block,
    "overwritten": _overwrite_block,
    "noise": _insert_noise,
}
"""Kinds of damage by name."""


def _at(content: bytearray, rng: np.random.Generator) -> int:
    return int(rng.integers(0, len(content)))


def _span(content: bytearray, rng: np.random.Generator) -> int:
    return int(min(len(content), 2 ** rng.uniform(2, 12)))


def _edge(content: bytearray, rng: np.random.Generator) -> int:
    """Returns a place near the beginning or the end of a file."""
    near = int(rng.integers(0, min(EDGE_BYTES, len(content))))
    return near if rng.random() < 0.7 else len(content) - 1 - near
