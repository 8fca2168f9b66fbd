"""Scenes of clips: things with attributes, events in time, and splits that share no attribute combination."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
Kind = Literal["sequence", "same", "together", "single", "count"]
Track = dict[str, NDArray[np.float64]]

CLIP_SECONDS = 4.0
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SIZES = {"small": 0.075, "medium": 0.115, "big": 0.170}  # radii in picture widths, before jitter
COLOURS = {
    "red": (218, 36, 36),
    "orange": (250, 132, 8),
    "yellow": (245, 226, 48),
    "green": (38, 176, 56),
    "cyan": (44, 214, 222),
    "blue": (48, 80, 232),
    "purple": (166, 58, 198),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
ROUND = ("circle", "ring")  # no rotation shows
HEADINGS = {"moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1)}
# Range of an event's amount: picture widths for paths, a factor for sizes, degrees per second for spins.
AMOUNTS = {
    **dict.fromkeys(HEADINGS, (0.30, 0.42)),
    "grows": (1.70, 1.95),
    "shrinks": (0.42, 0.52),
    "blinks": (1.0, 1.0),
    "spins": (62.0, 80.0),  # 21 to 27 degrees from one frame to the next at 3 per second: under half a star's 72
    "bounces": (0.18, 0.24),
    "orbits": (0.11, 0.15),
    "shakes": (0.065, 0.085),
    "pulses": (1.45, 1.65),
}
MOTIONS = tuple(AMOUNTS)
# Nominal seconds of one cycle, adjusted to a whole number of cycles. At 3 frames per second each shows at any phase:
# a blink is off for at least a third of a second, the others never repeat after one or two frames.
PERIODS = {"blinks": 0.8, "bounces": 0.95, "orbits": 2.0, "shakes": 0.48, "pulses": 1.0}
KINDS: dict[Kind, float] = {"sequence": 0.45, "same": 0.15, "together": 0.15, "single": 0.11, "count": 0.14}
SALT = "shapes-452"


class Combination(NamedTuple):
    """Attributes of one event; each combination belongs to one split."""

    size: str
    colour: str
    shape: str
    motion: str


@dataclass(frozen=True)
class Thing:
    """An object at the beginning of the clip; positions and radius in picture widths, y downwards."""

    size: str
    colour: str
    shape: str
    x: float
    y: float
    radius: float
    angle_degrees: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Event:
    """One motion of one thing, or of several identical things together.

    Attributes:
        things: Positions in `Scene.things`.
        motion: One of `MOTIONS`.
        start_seconds: Start of the motion.
        end_seconds: End of the motion; the position, size and angle reached then remain.
        amount: Distance, factor or speed, see `AMOUNTS`.
        turn: Direction of spins and orbits: 1 clockwise, -1 counter-clockwise.
    """

    things: tuple[int, ...]
    motion: str
    start_seconds: float
    end_seconds: float
    amount: float
    turn: int


@dataclass(frozen=True)
class Backdrop:
    """Background of the things, and perhaps a bar in front of them.

    Attributes:
        kind: Kind of background: plain, vertical, horizontal (gradients), checker or clouds.
        dark: First colour, 0 to 255.
        light: Second colour, 0 to 255; unused when plain.
        cells: Checks or cloud cells along one side.
        noise: Standard deviation of the noise of each pixel and frame, in levels of 255.
        noise_seed: Random seed of noise and clouds.
        bar: Covering bar (vertical 0 or 1, centre, width in picture widths, grey level), or empty.
    """

    kind: str
    dark: tuple[int, int, int]
    light: tuple[int, int, int]
    cells: int
    noise: float
    noise_seed: int
    bar: tuple[float, ...]


@dataclass(frozen=True)
class Scene:
    """Content of a clip of `CLIP_SECONDS`.

    Attributes:
        kind: Kind of scene: sequence (two things, one after the other), same (one thing, two events in sequence),
            together (two things at the same time), single (one event) or count (two or three identical things).
        things: Things in the order of drawing.
        events: One or two events, in the order of captions.
        still: Position in `things` of the bystander, which never moves; None without one.
        still_told: Whether captions mention the bystander.
        backdrop: Background and bar.
    """

    kind: Kind
    things: tuple[Thing, ...]
    events: tuple[Event, ...]
    still: int | None
    still_told: bool
    backdrop: Backdrop

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """Combination of each event."""
        firsts = [(self.things[event.things[0]], event.motion) for event in self.events]
        return tuple(Combination(thing.size, thing.colour, thing.shape, motion) for thing, motion in firsts)


def split_of(combination: Combination) -> Split:
    """Returns the only split that may show a combination, by a stable hash, about 80 : 10 : 10."""
    digest = hashlib.sha256("|".join((SALT, *combination)).encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 10
    return "test" if bucket == 9 else "val" if bucket == 8 else "train"


@lru_cache
def combinations_of(split: Split) -> tuple[Combination, ...]:
    """Returns every combination of a split, without round shapes that spin, for nobody could see it."""
    every = (
        Combination(size, colour, shape, motion)
        for size in SIZES
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
        if not (motion == "spins" and shape in ROUND)
    )
    return tuple(combination for combination in every if split_of(combination) == split)


def sample_scene(rng: np.random.Generator, split: Split) -> Scene:
    """Draws a scene whose events show only combinations of the split."""
    table = combinations_of(split)
    names = list(KINDS)
    while True:
        kind = names[rng.choice(len(names), p=list(KINDS.values()))]
        first = table[rng.integers(len(table))]
        actors = [first]
        if kind == "same":
            partners = [c for c in table if c[:3] == first[:3] and c.motion != first.motion]
            if not partners:
                continue
            actors.append(partners[rng.integers(len(partners))])
        elif kind in ("sequence", "together"):
            partners = [c for c in table if c[1:3] != first[1:3]]
            actors.append(partners[rng.integers(len(partners))])
        count = int(rng.integers(2, 4)) if kind == "count" else 1
        still = _bystander(rng, actors) if count < 3 and rng.random() < 0.35 else None
        scene = compose(rng, kind, actors, count=count, still=still, still_told=bool(rng.random() < 0.5))
        if scene is not None:
            return scene


def compose(
    rng: np.random.Generator,
    kind: Kind,
    actors: list[Combination],
    *,
    count: int = 1,
    still: tuple[str, str, str] | None = None,
    still_told: bool = True,
) -> Scene | None:
    """Places things for the given events, or returns None if it finds no way to keep them apart and in view.

    Args:
        rng: Generator of positions, times and looks.
        kind: Kind of scene.
        actors: Combination of each event; both of one thing for kind same.
        count: Number of identical things, for kind count.
        still: Size, colour and shape of a bystander; None for none.
        still_told: Whether captions mention the bystander.
    """
    if kind == "together":
        actors = sorted(actors)  # either order means the same
    nouns = [actors[0][:3]] * count if kind in ("same", "single", "count") else [actor[:3] for actor in actors]
    windows = _windows(rng) if kind in ("sequence", "same") else [(0.0, CLIP_SECONDS)] * 2
    events = []
    for number, actor in enumerate(actors):
        members = (number,) if kind in ("sequence", "together") else tuple(range(count))
        amount, turn = round(float(rng.uniform(*AMOUNTS[actor.motion])), 4), int(rng.choice((-1, 1)))
        events.append(Event(members, actor.motion, *windows[number], amount, turn))
    things = [_thing(rng, noun) for noun in nouns + ([still] if still else [])]
    if kind == "count":  # identical in colour and radius too
        things[:count] = [things[0]] * count
    placed = _place(rng, things, events)
    if placed is None:
        return None
    number_of_still = len(nouns) if still else None
    return Scene(kind, placed, tuple(events), number_of_still, bool(still) and still_told, _backdrop(rng))


def track(scene: Scene, number: int, times_seconds: NDArray[np.float64]) -> Track:
    """Returns a thing's x, y, radius (picture widths), angle (degrees) and visibility at each time, (N,) float64."""
    thing = scene.things[number]
    moved = _movement([event for event in scene.events if number in event.things], times_seconds)
    return {
        "x": thing.x + moved["x"],
        "y": thing.y + moved["y"],
        "radius": thing.radius * moved["scale"],
        "angle": thing.angle_degrees + moved["angle"],
        "visible": moved["visible"],
    }


def _movement(events: list[Event], times_seconds: NDArray[np.float64]) -> Track:
    """Computes how events change a thing: offsets x and y, scale, angle, visibility, each (N,) float64."""
    zeros = np.zeros_like(times_seconds)
    out = {"x": zeros, "y": zeros, "scale": zeros + 1, "angle": zeros, "visible": zeros + 1}
    for event in events:
        seconds = event.end_seconds - event.start_seconds
        progress = np.clip((times_seconds - event.start_seconds) / seconds, 0.0, 1.0)
        cycle = progress * max(1, round(seconds / PERIODS.get(event.motion, seconds)))
        turns = 2 * np.pi * cycle
        motion, amount = event.motion, event.amount
        if motion in HEADINGS:
            out["x"] = out["x"] + HEADINGS[motion][0] * amount * progress
            out["y"] = out["y"] + HEADINGS[motion][1] * amount * progress
        elif motion in ("grows", "shrinks"):
            out["scale"] = out["scale"] * amount**progress
        elif motion == "blinks":
            # 1e-6 makes a frame on the edge belong to the half that begins there, despite rounding.
            out["visible"] = np.where((cycle + 1e-6) % 1 >= 0.5, 0.0, out["visible"])
        elif motion == "spins":
            out["angle"] = out["angle"] + event.turn * amount * seconds * progress
        elif motion == "bounces":
            out["y"] = out["y"] - amount * np.abs(np.sin(turns / 2))
        elif motion == "orbits":
            out["x"] = out["x"] + amount * event.turn * np.sin(turns)
            out["y"] = out["y"] + amount * (1 - np.cos(turns))
        elif motion == "shakes":
            out["x"] = out["x"] + amount * np.sin(turns)
        else:  # pulses
            out["scale"] = out["scale"] * amount ** ((1 - np.cos(turns)) / 2)
    return out


def _windows(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draws the start and end of two events in sequence, in seconds."""
    start, middle, end = rng.uniform(0.0, 0.25), rng.uniform(1.85, 2.15), rng.uniform(3.75, CLIP_SECONDS)
    return [(round(start, 3), round(middle - 0.05, 3)), (round(middle + 0.05, 3), round(end, 3))]


def _bystander(rng: np.random.Generator, actors: list[Combination]) -> tuple[str, str, str]:
    """Draws size, colour and shape of a bystander; no actor has that colour and shape."""
    while True:
        size, colour, shape = (str(rng.choice(list(names))) for names in (SIZES, COLOURS, SHAPES))
        if all((colour, shape) != actor[1:3] for actor in actors):
            return size, colour, shape


def _thing(rng: np.random.Generator, noun: tuple[str, ...]) -> Thing:
    size, colour, shape = noun
    tint = np.clip(np.array(COLOURS[colour]) + rng.integers(-14, 15, size=3), 0, 255)
    radius = round(SIZES[size] * float(rng.uniform(0.94, 1.06)), 4)
    angle = round(float(rng.uniform(-12, 12)), 2)
    return Thing(size, colour, shape, 0.0, 0.0, radius, angle, (int(tint[0]), int(tint[1]), int(tint[2])))


def _place(rng: np.random.Generator, things: list[Thing], events: list[Event]) -> tuple[Thing, ...] | None:
    """Gives each thing a start from which it stays in view and, but for a slight touch, apart from the others."""
    times = np.linspace(0.0, CLIP_SECONDS, 33)
    paths, reaches, lows, highs = [], [], [], []
    for number, thing in enumerate(things):
        moved = _movement([event for event in events if number in event.things], times)
        path, reach = np.stack([moved["x"], moved["y"]]), thing.radius * moved["scale"]
        lows.append((1.05 * reach - path).max(axis=1))
        highs.append((1 - 1.05 * reach - path).min(axis=1))
        paths.append(path)
        reaches.append(reach)
    if any((low > high).any() for low, high in zip(lows, highs, strict=True)):
        return None
    for _ in range(40):
        starts = [rng.uniform(low, high).round(4) for low, high in zip(lows, highs, strict=True)]
        centres = [start[:, None] + path for start, path in zip(starts, paths, strict=True)]
        if all(
            (np.hypot(*(centres[i] - centres[j])) > 0.95 * (reaches[i] + reaches[j])).all()
            for i in range(len(things))
            for j in range(i)
        ):
            return tuple(
                replace(thing, x=float(start[0]), y=float(start[1]))
                for thing, start in zip(things, starts, strict=True)
            )
    return None


def _backdrop(rng: np.random.Generator) -> Backdrop:
    """Draws a dim, neutral background, on which every colour stands out."""
    kind = str(rng.choice(("plain", "vertical", "horizontal", "checker", "clouds")))
    dark = _dim(rng, 12, 55)
    light = _dim(rng, 50, 95)
    bar: tuple[float, ...] = ()
    if rng.random() < 0.15:
        bar = (
            float(rng.integers(2)),
            *(round(float(rng.uniform(*r)), 3) for r in ((0.2, 0.8), (0.05, 0.09), (90, 130))),
        )
    noise = round(float(rng.uniform(1.0, 4.5)), 2)
    return Backdrop(kind, dark, light, int(rng.integers(4, 9)), noise, int(rng.integers(2**31)), bar)


def _dim(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = np.clip(rng.integers(low, high) + rng.integers(-10, 11, size=3), 0, 255)
    return int(red), int(green), int(blue)
