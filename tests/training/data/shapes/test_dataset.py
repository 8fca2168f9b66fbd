"""`shapes`: what happens in a clip, how it looks, and the files that it becomes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hbi_infer.errors import DataError
from hbi_infer.options import FrameSampling
from hbi_infer.video.reader import decode, probe
from hbi_training.data.shapes import (
    Combination,
    Scene,
    captions,
    compose,
    render,
    sample_scene,
    scene_at,
    scenes,
    split_of,
    write_shapes,
)
from hbi_training.data.shapes.dataset import write_video
from hbi_training.data.shapes.scene import (
    COLOURS,
    MOTIONS,
    ROUND,
    SHAPES,
    SIZES,
    SPLITS,
    Split,
    combinations_of,
    track,
)

SEEDS = st.integers(0, 2**32 - 1)
ALL_TIMES = np.arange(48) / 12


def sampled(seed: int, split: Split) -> Scene:
    return sample_scene(np.random.default_rng(seed), split)


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


class TestSplits:
    def test_every_combination_has_one_split_of_about_the_intended_share(self) -> None:
        sizes = {split: len(combinations_of(split)) for split in SPLITS}
        possible = len(SIZES) * len(COLOURS) * (len(SHAPES) * len(MOTIONS) - len(ROUND))
        assert len({c for split in SPLITS for c in combinations_of(split)}) == sum(sizes.values()) == possible
        assert [round(sizes[split] / possible, 1) for split in SPLITS] == [0.8, 0.1, 0.1]

    @pytest.mark.parametrize("split", SPLITS)
    def test_every_value_of_every_attribute_is_in_every_split(self, split: Split) -> None:
        for values, known in zip(
            zip(*combinations_of(split), strict=True), (SIZES, COLOURS, SHAPES, MOTIONS), strict=True
        ):
            assert set(values) == set(known)

    def test_the_readme_query_is_of_the_test_split(self) -> None:
        assert split_of(Combination("small", "red", "circle", "moves left")) == "test"
        assert split_of(Combination("medium", "blue", "square", "blinks")) == "test"

    @given(seed=SEEDS, split=st.sampled_from(SPLITS))
    @settings(max_examples=100, deadline=None)
    def test_a_scene_shows_its_split_only_and_stays_in_view(self, seed: int, split: Split) -> None:
        scene = sampled(seed, split)
        assert {split_of(combination) for combination in scene.combinations} == {split}
        assert scene.combinations == tuple(
            Combination(thing.size, thing.colour, thing.shape, event.motion)
            for event in scene.events
            for thing in {scene.things[number].rgb: scene.things[number] for number in event.things}.values()
        )
        for number, thing in enumerate(scene.things):
            states = track(scene, number, ALL_TIMES)
            for axis in "xy":
                assert (states[axis] > 0.9 * states["radius"]).all(), thing
                assert (states[axis] < 1 - 0.9 * states["radius"]).all(), thing
        nouns = {(thing.colour, thing.shape) for thing in scene.things}
        assert len(nouns) == len(scene.things) - (len(scene.events[0].things) - 1)  # only members of a group share one

    def test_most_scenes_have_two_events_in_sequence(self) -> None:
        kinds = [scene_at(0, "train", number).kind for number in range(400)]
        assert 0.5 < np.mean([kind in ("sequence", "same") for kind in kinds]) < 0.7
        assert set(kinds) == {"sequence", "same", "together", "single", "count"}


class TestDeterminism:
    def test_a_scene_and_its_frames_depend_on_seed_split_and_number_only(self) -> None:
        first, again = scene_at(5, "val", 3), scene_at(5, "val", 3)
        assert first == again
        assert render(first, ALL_TIMES).tobytes() == render(again, ALL_TIMES).tobytes()
        others = [scene_at(6, "val", 3), scene_at(5, "test", 3), scene_at(5, "val", 4), scene_at(5, "val", 3, 1)]
        assert first not in others

    @given(seed=SEEDS, order=st.permutations(range(48)), kept=st.integers(0, 48))
    @settings(max_examples=20, deadline=None)
    def test_a_frame_does_not_depend_on_the_other_times(self, seed: int, order: list[int], kept: int) -> None:
        scene = sampled(seed, "train")
        some = order[:kept]
        assert np.array_equal(render(scene, ALL_TIMES[some], 32), render(scene, ALL_TIMES, 32)[some])

    def test_scenes_outside_training_have_captions_of_their_own(self) -> None:
        first_captions = [captions(scene, np.random.default_rng(0))[0] for scene in scenes(0, "test", 300)]
        assert len(set(first_captions)) == 300
        assert list(scenes(0, "test", 40)) == list(scenes(0, "test", 300))[:40]

    def test_a_scene_is_json(self) -> None:
        scene = asdict(scene_at(0, "train", 0))
        assert json.loads(json.dumps(scene))["things"][0]["x"] == scene["things"][0]["x"]


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


class TestWriting:
    def test_a_written_clip_decodes_to_nearly_the_rendered_frames(self, tmp_path: Path) -> None:
        write_shapes(tmp_path, 0, 0, 3, seed=2, workers=1)
        lines = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
        for line, scene in zip(lines, scenes(2, "test", 3), strict=True):
            path = tmp_path / line["video"]
            assert line["scene"] == json.loads(json.dumps(asdict(scene)))
            assert len(line["captions"]) == len(set(line["captions"])) == 5
            assert len(line["hard_negatives"]) == 3
            assert len(line["questions"]) >= 6
            info = probe(path)
            assert (info.width, info.height, info.codec) == (96, 96, "h264")
            assert info.duration_seconds == pytest.approx(4.0, abs=0.01)
            decoded = decode(path, FrameSampling(frames_per_second=3.0, max_frames=12, image_size=96, clip_seconds=4.0))
            (clip,) = decoded.clips
            assert decoded.status == "ok"
            assert clip.mask.all()
            difference = np.abs(clip.frames.astype(int) - render(scene, clip.timestamps_seconds)).mean()
            assert difference < 5  # of 255; noise and half the colours' resolution are lost

    def test_the_same_frames_give_the_same_bytes_whatever_the_memory_held(self, tmp_path: Path) -> None:
        frames = render(scene_at(1, "train", 0), ALL_TIMES)
        rng = np.random.default_rng(0)
        contents = set()
        for _ in range(8):
            garbage = [rng.integers(0, 255, rng.integers(200, 300_000), dtype=np.uint8) for _ in range(60)]
            del garbage  # the encoder is given this memory
            write_video(tmp_path / "clip.mp4", frames)
            contents.add((tmp_path / "clip.mp4").read_bytes())
        assert len(contents) == 1

    def test_resumes_and_gives_the_same_bytes(self, tmp_path: Path) -> None:
        write_shapes(tmp_path, 3, 1, 1, seed=1, workers=1)
        videos = sorted((tmp_path / "videos").iterdir())
        manifests = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
        assert [path.name for path in videos] == [
            "test_000000.mp4", "train_000000.mp4", "train_000001.mp4", "train_000002.mp4", "val_000000.mp4",
        ]  # fmt: skip
        lost, kept = videos[2], videos[1]
        content, written_at = lost.read_bytes(), kept.stat().st_mtime_ns
        lost.unlink()
        lost.with_suffix(".part").write_bytes(content[:100])  # what a killed run leaves
        (tmp_path / "train.jsonl").unlink()

        write_shapes(tmp_path, 3, 1, 1, seed=1, workers=2)

        assert lost.read_bytes() == content
        assert kept.stat().st_mtime_ns == written_at
        assert {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == manifests
        assert not list(tmp_path.rglob("*.part"))
        with pytest.raises(DataError, match="choose another folder"):
            write_shapes(tmp_path, 3, 1, 1, seed=2, workers=1)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"cannot write to .*file: Not a directory; choose another folder"):
            write_shapes(tmp_path / "file", 1, 0, 0)

    def test_ctrl_c_leaves_only_whole_clips(self, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from hbi_training.data.shapes import write_shapes\n"
            "if __name__ == '__main__': write_shapes(Path(sys.argv[1]), 5000, 0, 0, workers=2)"
        )
        script = tmp_path / "write.py"
        script.write_text(program)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, script, tmp_path], env=environment, stderr=subprocess.PIPE, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("videos/*.mp4"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, stderr = process.communicate(timeout=60)
        assert stderr.rstrip().endswith(b"KeyboardInterrupt")
        assert process.returncode != 0
        videos = list((tmp_path / "videos").iterdir())
        assert 3 <= len(videos) < 5000
        for path in videos:
            with av.open(path) as container:
                assert sum(1 for _ in container.decode(video=0)) == 48
