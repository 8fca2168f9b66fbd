"""How shapes look: each motion shows in six frames, colours and sizes are apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hbi_training.data.shapes import (
    Combination,
    Scene,
    compose,
    render,
)
from hbi_training.data.shapes.scene import (
    COLOURS,
    ROUND,
    SHAPES,
    SIZES,
    track,
)

ALL_TIMES = np.arange(48) / 12


def plain(combination: Combination, seed: int = 0) -> Scene:
    """One event of two seconds, on a plain ground without noise or bar."""
    composed = None
    rng = np.random.default_rng(seed)
    while composed is None:
        composed = compose(rng, "single", [combination])
    event = replace(composed.events[0], end_seconds=2.0)
    backdrop = replace(composed.backdrop, kind="plain", noise=0.0, bar=())
    return replace(composed, events=(event,), backdrop=backdrop)


def seen(scene: Scene, times_seconds: NDArray[np.float64], image_size: int = 96) -> NDArray[np.bool_]:
    """(N, H, W) bool: pixels of the first thing's colour."""
    colour = np.array(scene.things[0].rgb)
    difference = np.abs(render(scene, times_seconds, image_size).astype(int) - colour)
    return np.asarray(difference.max(axis=-1) < 50)


def centroids(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 2) float64: x and y of what is seen, in picture widths."""
    return np.asarray([(np.argwhere(mask).mean(axis=0)[::-1] + 0.5) / mask.shape[0] for mask in masks])


@pytest.mark.parametrize("phase_seconds", [0.0, 0.07, 0.15, 0.24, 0.32])
@pytest.mark.parametrize("size", SIZES)
class TestMotions:
    """Each motion shows in six frames, 3 per second, whenever the first of them is taken."""

    def look(self, motion: str, size: str, phase_seconds: float, shape: str = "square") -> NDArray[np.bool_]:
        scene = plain(Combination(size, "yellow", shape, motion), seed=len(motion))
        return seen(scene, phase_seconds + np.arange(6) / 3)

    @pytest.mark.parametrize(
        ("motion", "heading"),
        [("moves left", (-1, 0)), ("moves right", (1, 0)), ("moves up", (0, -1)), ("moves down", (0, 1))],
    )
    def test_moves_one_way(self, motion: str, heading: tuple[int, int], size: str, phase_seconds: float) -> None:
        steps = np.diff(centroids(self.look(motion, size, phase_seconds)), axis=0)
        assert (steps @ np.array(heading) > 0.03).all()
        assert np.abs(steps @ np.array(heading[::-1])).max() < 0.01

    def test_grows_and_shrinks(self, size: str, phase_seconds: float) -> None:
        for motion, sign in (("grows", 1), ("shrinks", -1)):
            areas = self.look(motion, size, phase_seconds).sum(axis=(1, 2))
            assert (np.diff(areas) * sign > 0).all()
            assert (areas[-1] / areas[0]) ** sign > 2

    def test_blinks(self, size: str, phase_seconds: float) -> None:
        areas = self.look("blinks", size, phase_seconds).sum(axis=(1, 2))
        assert 1 <= (areas == 0).sum() <= 4
        assert len(set(areas)) == 2

    @pytest.mark.parametrize("shape", sorted(set(SHAPES) - set(ROUND)))
    def test_spins(self, shape: str, size: str, phase_seconds: float) -> None:
        masks = self.look("spins", size, phase_seconds, shape)
        places, areas = centroids(masks), masks.sum(axis=(1, 2))
        assert np.ptp(places, axis=0).max() < 0.06  # a triangle turns round the middle of its height, not its mass
        changed = (masks[1:] != masks[:-1]).sum(axis=(1, 2))
        assert (changed[:4] > 0.08 * areas[0]).all()

    def test_bounces(self, size: str, phase_seconds: float) -> None:
        x, y = centroids(self.look("bounces", size, phase_seconds)).T
        assert np.ptp(x) < 0.01
        assert np.ptp(y) > 0.1
        assert (np.diff(np.sign(np.diff(y))) != 0).any()

    def test_orbits(self, size: str, phase_seconds: float) -> None:
        x, y = centroids(self.look("orbits", size, phase_seconds)).T
        assert min(np.ptp(x), np.ptp(y)) > 0.15

    def test_shakes(self, size: str, phase_seconds: float) -> None:
        x, y = centroids(self.look("shakes", size, phase_seconds)).T
        assert 0.06 < np.ptp(x) < 0.2
        assert np.ptp(y) < 0.01
        assert (np.diff(np.sign(np.diff(x))) != 0).sum() >= 2

    def test_pulses(self, size: str, phase_seconds: float) -> None:
        areas = self.look("pulses", size, phase_seconds).sum(axis=(1, 2))
        assert areas.max() / areas.min() > 1.5
        assert (np.diff(np.sign(np.diff(areas))) != 0).any()


class TestLooks:
    def test_the_second_event_begins_when_the_first_has_ended(self) -> None:
        actors = [Combination("big", "white", "ring", "moves right"), Combination("small", "red", "star", "moves up")]
        scene = compose(np.random.default_rng(0), "sequence", actors)
        assert scene is not None
        between = [scene.events[0].end_seconds, scene.events[1].start_seconds]
        assert 1.7 < between[0] < between[1] < 2.3
        first, second = (track(scene, number, np.array([0.0, *between, 4.0])) for number in (0, 1))
        assert first["x"][0] + 0.25 < first["x"][1] == first["x"][2] == first["x"][3]
        assert second["y"][0] == second["y"][1] == second["y"][2] > second["y"][3] + 0.25

    @pytest.mark.parametrize("colour", COLOURS)
    def test_each_colour_is_nearest_to_itself(self, colour: str) -> None:
        known = np.array(list(COLOURS.values()))
        for seed in range(10):
            scene = plain(Combination("medium", colour, "circle", "orbits"), seed)
            x, y = (int(96 * getattr(scene.things[0], axis)) for axis in "xy")
            pixel = render(scene, [0.0])[0, y, x].astype(int)
            assert list(COLOURS)[np.square(known - pixel).sum(axis=1).argmin()] == colour

    def test_sizes_are_apart(self) -> None:
        areas = [
            [seen(plain(Combination(size, "cyan", "square", "shakes"), seed), np.zeros(1)).sum() for seed in range(10)]
            for size in SIZES
        ]
        assert max(areas[0]) * 1.5 < min(areas[1])
        assert max(areas[1]) * 1.5 < min(areas[2])

    def test_a_small_picture_shows_the_same(self) -> None:
        scene = plain(Combination("medium", "orange", "triangle", "moves down"))
        large, small = (centroids(seen(scene, ALL_TIMES[::8], size)) for size in (128, 48))
        assert np.abs(large - small).max() < 0.01

    def test_a_bar_covers_and_noise_changes_from_frame_to_frame(self) -> None:
        scene = plain(Combination("big", "green", "cross", "blinks"))
        x = scene.things[0].x
        barred = replace(scene, backdrop=replace(scene.backdrop, bar=(1.0, x, 0.08, 120.0)))
        assert (render(barred, [0.0])[0, :, round(96 * x)] == 120).all()
        noisy = replace(scene, backdrop=replace(scene.backdrop, noise=3.0))
        first, second = render(noisy, [0.0, 1 / 12]).astype(int)
        assert 2 < (first - second).std() < 8
