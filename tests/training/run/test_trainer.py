"""Training runs: exact resume, several devices, batches, recipes, the frame cache, the commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from hbi_infer.errors import DataError, TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_infer.options import FrameSampling
from hbi_training.data.batches import TrainingBatches, shift
from hbi_training.data.frame_cache import FrameCache, Split
from hbi_training.data.records import VideoRecord
from hbi_training.run.recipe import OptimiserOptions, load_recipe, recipe_from_mapping, recipe_to_mapping
from hbi_training.run.trainer import Trainer, learning_rate_factor
from hbi_training.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.builders.tiny_training import (
    HBI_SECTION,
    MEAN_POOLED_SECTION,
    SAMPLING,
    same_weights,
    shapes_splits,
    tiny_recipe,
)
from tests.paths import RECIPES


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def splits(data_folder: Path) -> tuple[Split, Split]:
    return shapes_splits(data_folder)


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_a_resumed_run_is_the_uninterrupted_run_to_the_bit(
    splits: tuple[Split, Split], tmp_path: Path, matrices: str
) -> None:
    options = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3, "matrices": matrices}
    recipe = tiny_recipe(optimiser=options)
    whole = Trainer(recipe, *splits, tmp_path / "whole", cpu=True)
    whole.run()

    class StopHere(KeyboardInterrupt):
        pass

    def stop_after(steps: int) -> Any:
        done = 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            if done == steps:
                raise StopHere

        return advance

    cut = Trainer(recipe, *splits, tmp_path / "cut", cpu=True)
    with pytest.raises(KeyboardInterrupt):
        cut.run(stop_after(4))
    said: list[str] = []
    resumed = Trainer(recipe, *splits, tmp_path / "cut", cpu=True, say=said.append)
    resumed.resume()
    assert said == ["resumed at step 4"]
    resumed.run()
    assert same_weights(whole.model, resumed.model)
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 2
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/total" in line] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["validation/text_to_video/R@10"] > 0
    assert list((tmp_path / "cut").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("part", ["accelerator.backward", "optimisers.0.step"])
def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(
    splits: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    options = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3, "matrices": "muon"}
    # The answer head draws dropout: a step that is done again would draw anew.
    recipe = tiny_recipe(optimiser=options, objective={"answering": 1.0, "hard_negatives": 1})
    whole = Trainer(recipe, *splits, tmp_path / "whole", cpu=True)
    whole.run()

    cut = Trainer(recipe, *splits, tmp_path / "cut", cpu=True)
    *path, name = part.split(".")
    owner: Any = cut.accelerator if path == ["accelerator"] else cut.optimisers[0]
    compute = getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        if cut.step == 2:
            # Not a signal of the system's: a library that other tests loaded may have taken its stack away.
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, None)
        return compute(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    assert cut.step == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = Trainer(recipe, *splits, tmp_path / "cut", cpu=True)
    resumed.resume()
    resumed.run()
    assert same_weights(whole.model, resumed.model)


def test_a_run_that_was_stopped_while_it_measured_measures_again(splits: tuple[Split, Split], tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("step 6:"):  # measured, and about to write its model
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(tiny_recipe(), *splits, tmp_path, cpu=True, say=stop).run()
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert "validation/text_to_video/R@1" in json.loads(lines[-1])
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # as kill -9 leaves it
    assert not (tmp_path / "model").exists()

    resumed = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    resumed.resume()
    metrics = resumed.run()
    assert load_checkpoint(tmp_path / "model").provenance["steps"] == 6
    again = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    again.resume()
    known = again.run()
    assert known.keys() == metrics.keys()
    assert known["text_to_video/R@1"] == pytest.approx(metrics["text_to_video/R@1"])


def test_training_learns_and_its_checkpoint_computes_the_same(splits: tuple[Split, Split], tmp_path: Path) -> None:
    recipe = tiny_recipe(
        optimiser={"steps": 60, "batch_size": 8, "learning_rate": 3e-3, "clip_learning_rate": 3e-3},
        report={"evaluate_steps": 60, "checkpoint_steps": 60, "log_steps": 1},
    )
    trainer = Trainer(recipe, *splits, tmp_path, cpu=True)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/total"] for line in lines if "loss/total" in line]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    checkpoint = load_checkpoint(tmp_path / "model")
    assert same_weights(checkpoint.model, trainer.model)
    assert checkpoint.provenance["steps"] == 60
    assert recipe_from_mapping(checkpoint.provenance["recipe"], "its recipe") == recipe


def test_muon_takes_the_matrices_and_no_table(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-4, "matrices": "muon"}
    trainer = Trainer(tiny_recipe(optimiser=options), *splits, tmp_path, cpu=True)
    names = {id(parameter): name for name, parameter in trainer.step_module.named_parameters()}
    adamw, muon = (
        {names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]}
        for optimiser in trainer.optimisers
    )
    assert adamw.isdisjoint(muon)
    assert adamw | muon == set(names.values())
    assert not any("embedding" in name or name.endswith("bias") for name in muon)
    assert "model.text_hierarchy.merges.action.attention.query.weight" in muon
    assert {group["initial_lr"] for group in trainer.optimisers[1].param_groups} == {1e-3, 1e-4}


def test_positions_have_a_rate_of_their_own(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-4}
    options["position_learning_rate"] = 1e-2
    trainer = Trainer(tiny_recipe(optimiser=options), *splits, tmp_path, cpu=True)
    names = {id(parameter): name for name, parameter in trainer.step_module.named_parameters()}
    groups = [group for optimiser in trainer.optimisers for group in optimiser.param_groups]
    fast = [parameter for group in groups if group["initial_lr"] == 1e-2 for parameter in group["params"]]
    assert {names[id(parameter)] for parameter in fast} == {
        "model.frame_encoder.vision.embeddings.position_embedding.weight",
        "model.word_encoder.text.embeddings.position_embedding.weight",
        "model.temporal_transformer.position.weight",
    }


def test_a_number_that_yaml_reads_as_a_text_is_a_number() -> None:
    overrides = {"optimiser.learning_rate": "2e-3", "optimiser.decay_steps": "null"}
    options = load_recipe(RECIPES / "shapes.yaml", overrides).optimiser
    assert options.learning_rate == 0.002
    assert options.decay_steps is None


def test_another_recipe_does_not_resume_a_run(splits: tuple[Split, Split], tmp_path: Path) -> None:
    Trainer(tiny_recipe(), *splits, tmp_path, cpu=True).save()
    other = Trainer(tiny_recipe(seed=1), *splits, tmp_path, cpu=True)
    with pytest.raises(TrainingError, match="begun with another recipe"):
        other.resume()


def test_the_baseline_trains_by_the_same_recipe(splits: tuple[Split, Split], tmp_path: Path) -> None:
    metrics = Trainer(tiny_recipe(model=MEAN_POOLED_SECTION), *splits, tmp_path, cpu=True).run()
    assert "video/text_to_video/R@1" in metrics


TWO_DEVICES = """
import sys
from pathlib import Path
import torch
from tests.builders.tiny_training import HBI_SECTION, shapes_splits, tiny_recipe
from hbi_training.run.trainer import Trainer
recipe = tiny_recipe(model={**HBI_SECTION, "reconstruction_layers": 1})
trainer = Trainer(recipe, *shapes_splits(Path(sys.argv[1])), Path(sys.argv[2]), cpu=True)
trainer.run()
if trainer.accelerator.is_main_process:
    torch.save(trainer.model.state_dict(), Path(sys.argv[2]) / "weights.pt")
"""


def test_two_devices_train_as_one(splits: tuple[Split, Split], data_folder: Path, tmp_path: Path) -> None:
    """Also where a part of the model, here the reconstruction, is left untrained by the objective."""
    recipe = tiny_recipe(model={**HBI_SECTION, "reconstruction_layers": 1})
    one = Trainer(recipe, *splits, tmp_path / "one", cpu=True)
    one.run()
    (tmp_path / "two").mkdir()
    command = [sys.executable, "-c", TWO_DEVICES, str(data_folder), str(tmp_path / "two")]
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29541",
    }
    shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr.decode()
    weights = torch.load(tmp_path / "two" / "weights.pt", weights_only=True)
    for name, tensor in one.model.state_dict().items():
        # Adam divides by the gradient's own size: where that is rounding, its sign is too.
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=2e-3, msg=name)
    close = [
        torch.allclose(weights[name], tensor, rtol=0, atol=1e-4) for name, tensor in one.model.state_dict().items()
    ]
    assert np.mean(close) > 0.9


def test_batches_visit_every_clip_once_a_pass(splits: tuple[Split, Split]) -> None:
    train = splits[0]
    corpus = [caption for record in train.records for caption in record.captions]
    tokenizer = Tokenizer.from_json(clip_tokenizer_json(corpus))
    options: dict[str, Any] = {"batch_size": 8, "max_words": 40, "seed": 0, "num_negatives": 2}
    batches = TrainingBatches(train.records, train.cache, tokenizer, rows=train.cache.decoded, **options)
    assert batches.steps_per_pass == 3
    frames = torch.cat([batches[step].frames for step in range(3)])
    every = train.cache[train.cache.decoded][0]
    assert sorted(clip.tobytes() for clip in frames.numpy()) == sorted(clip.tobytes() for clip in every)
    assert torch.equal(batches[4].token_ids, batches[4].token_ids)
    assert batches[0].negative_ids is not None
    assert len(batches[0].negative_ids) == 16
    # Two ranks share a batch of one.
    half = TrainingBatches(
        train.records, train.cache, tokenizer, rows=train.cache.decoded, rank=1, num_ranks=2, **options
    )
    assert torch.equal(half[2].frames, batches[2].frames[1::2])
    with pytest.raises(TrainingError, match="some clips of the data set have fewer"):
        TrainingBatches(
            train.records, train.cache, tokenizer, rows=train.cache.decoded, **{**options, "num_negatives": 9}
        )


def test_shift_repeats_the_border() -> None:
    frames = np.arange(2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 3)
    moved = shift(frames, 1, -1)
    np.testing.assert_array_equal(moved[:, 1:, :2], frames[:, :2, 1:])
    np.testing.assert_array_equal(moved[:, 0], moved[:, 1])
    np.testing.assert_array_equal(moved[:, :, 2], moved[:, :, 1])


def test_learning_rate_schedule() -> None:
    options = OptimiserOptions(
        steps=100, batch_size=1, learning_rate=1, clip_learning_rate=1, warmup_steps=10, decay_steps=40
    )
    factors = [learning_rate_factor(step, options) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:61] == [1.0] * 52
    assert factors[80] == pytest.approx(0.5)
    assert factors[100] == 0
    assert all(a >= b for a, b in pairwise(factors[60:]))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_readable(path: Path) -> None:
    recipe = load_recipe(path, {"optimiser.steps": "7"})
    assert recipe.optimiser.steps == 7
    assert recipe.name
    assert recipe_from_mapping(recipe_to_mapping(recipe), "itself") == recipe


def test_a_bare_no_of_yaml_is_no_mixed_precision(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    rates = "steps: 1, batch_size: 1, learning_rate: 1, clip_learning_rate: 1"
    path.write_text(f"{{name: a, model: {{}}, data: {{format: m, folder: f}}, optimiser: {{{rates}}}}}")
    assert load_recipe(path, {"optimiser.mixed_precision": "no"}).optimiser.mixed_precision == "no"


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps the precision of a process's first run for all that follow."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerate")
def test_auto_is_bfloat16_where_the_processor_has_it(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3}
    recipe = tiny_recipe(optimiser={**options, "matrices": "muon", "mixed_precision": "auto"})
    said: list[str] = []
    trainer = Trainer(recipe, *splits, tmp_path / "run", cpu=True, say=said.append)
    flags = set(Path("/proc/cpuinfo").read_text().split())
    has = "bf16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "no"
    assert trainer.accelerator.mixed_precision == has
    assert f"mixed precision: {has}" in said
    assert [getattr(optimiser.optimizer, "dtype", None) for optimiser in trainer.optimisers] == [
        None,
        torch.bfloat16 if has == "bf16" else None,
    ]


@pytest.mark.usefixtures("fresh_accelerate")
def test_training_in_bfloat16_learns_as_in_float32(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 8, "batch_size": 8, "learning_rate": 3e-3, "clip_learning_rate": 3e-3, "matrices": "muon"}
    objective = {"hard_negatives": 1, "banzhaf": 0.5, "answering": 1.0, "captioning": 1.0}
    losses = {}
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(reset_partial_state=True)
        recipe = tiny_recipe(
            model={**HBI_SECTION, "reconstruction_layers": 1, "caption_layers": 1},
            objective=objective,
            optimiser={**options, "mixed_precision": precision},
            report={"evaluate_steps": 100, "checkpoint_steps": 100, "log_steps": 1},
        )
        trainer = Trainer(recipe, *splits, tmp_path / precision, cpu=True)
        trainer.run()
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
        lines = (tmp_path / precision / "metrics.jsonl").read_text().splitlines()
        losses[precision] = np.array([line["loss/total"] for line in map(json.loads, lines) if "loss/total" in line])
    assert losses["bf16"][-1] < 0.9 * losses["bf16"][0]
    assert 0 < np.abs(losses["bf16"] / losses["no"] - 1).max() < 0.03


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: [", "is not YAML"),
        ("- a", "is not a mapping"),
        (
            "{name: a, model: {}, data: {format: m, folder: f}, optimiser: {steps: many}}",
            "steps is 'many'; it must be a",
        ),
        ("{name: a, model: {}, data: {format: m, folder: f}, optimiser: {steps: 2.5}}", "must be a whole number"),
        (
            "{name: a, model: {}, data: {format: m, folder: f}, optimiser: {mixed_precision: fp8}}",
            "mixed_precision is 'fp8'; choose one of: auto, no, bf16, fp16",
        ),
        ("{name: a, modle: {}}", "unknown key 'modle'; did you mean 'model'?"),
        ("{name: a, model: {}, data: {format: m, folder: f}, optimiser: {stepz: 3}}", "did you mean 'steps'?"),
        (
            "{name: a, model: {}, data: {format: m, folder: f}, optimiser: {steps: 3}}",
            "has no batch_size and no learning_rate and no clip_learning_rate",
        ),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(TrainingError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


WITHOUT_CLIP = {key: value for key, value in HBI_SECTION.items() if key != "clip"}
VISION = HBI_SECTION["clip"]["vision_config"]


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("model", WITHOUT_CLIP, "has no clip"),
        ("model", {**HBI_SECTION, "clip": {"text_config": {}}}, "no projection_dim"),
        ("model", {**HBI_SECTION, "max_words": 41}, "max_words is 41, and clip's text_config has max_position"),
        ("model", {**HBI_SECTION, "temporal_positions": 5}, "temporal_positions is 5, and sampling takes up to 6"),
        (
            "model",
            {**HBI_SECTION, "sampling": {**SAMPLING, "image_size": 64}},
            "frames of 64 pixels, and clip's vision_config has image_size 32",
        ),
        (
            "model",
            {**HBI_SECTION, "clip": {**HBI_SECTION["clip"], "vision_config": {**VISION, "patch_sise": 8}}},
            "unknown key 'patch_sise'; did you mean 'patch_size'?",
        ),
        ("objective", {"hard_negatives": 99}, "the objective's hard_negatives is 99, and some clips"),
    ],
)
def test_a_recipe_that_does_not_fit_together_is_explained(
    splits: tuple[Split, Split], tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        Trainer(tiny_recipe(**{section: changes}), *splits, tmp_path, cpu=True)


@pytest.mark.parametrize("key", ["optimiser.steps", "optimiser.batch_size", "report.log_steps"])
def test_counts_are_at_least_one(key: str) -> None:
    with pytest.raises(TrainingError, match=f"{key.split('.')[1]} is 0; it must be at least 1"):
        load_recipe(RECIPES / "shapes.yaml", {key: "0"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"model": {', "config.json is not what hbi-train writes"),
        ("config.json", b'{"model_type": "clip"}', "export it with: hbi-export clip"),
        ("model.safetensors", None, "do not fit its config.json"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(
    splits: tuple[Split, Split], tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    trainer = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    save_checkpoint(Checkpoint(trainer.model, trainer.tokenizer_json, "tiny"), tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(TrainingError, match=re.escape(message)):
        load_checkpoint(tmp_path / "model")


SMALL_DISK = """
mount -t tmpfs -o size=100k none "$1" || exit 77
exec "$2" -c "$3" "$1"
"""
FILL = """
import sys
from pathlib import Path
from hbi_infer.errors import DataError
from hbi_infer.options import FrameSampling
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import VideoRecord
folder = Path(sys.argv[1])
record = VideoRecord(folder / "clip.mp4", ("a",))
record.video.write_bytes(b"")
try:
    FrameCache(folder / "frames", [record], FrameSampling(image_size=112))
except DataError as error:
    print(error, sorted(path.name for path in folder.rglob("frames.npy*")))
"""


def test_a_disk_without_room_for_the_frames_is_told(tmp_path: Path) -> None:
    """A mapped file has no room until its pages are written, and then the process would be killed."""
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        SMALL_DISK,
        "sh",
        str(tmp_path),
        sys.executable,
        FILL,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no small disk can be mounted here")
    assert done.returncode == 0, done.stderr
    assert "GiB for the decoded frames: No space left on device" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_the_cache_continues_where_it_stopped_and_keeps_reasons(data_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    good = sorted((data_folder / "videos").glob("train_*.mp4"))[:3]
    records = [VideoRecord(path, ("a",)) for path in [*good, broken, good[0]]]
    sampling = FrameSampling(**SAMPLING)
    failures = FrameCache(tmp_path / "frames", records, sampling).fill(workers=0)
    assert list(failures) == [str(broken)]
    assert "empty" in failures[str(broken)]

    again = FrameCache(tmp_path / "frames", records, sampling)
    seen: list[int] = []
    assert again.fill(workers=0, advance=seen.append) == failures
    assert seen == [5]
    assert again.decoded.tolist() == [0, 1, 2, 4]
    frames, mask = again[np.array([0, 4])]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert mask.all()
    with pytest.raises(DataError, match="none of 1 videos could be decoded"):
        FrameCache(tmp_path / "frames", records[3:4], sampling).fill(workers=0)


def write_recipe(path: Path, folder: Path, steps: int) -> Path:
    recipe = recipe_to_mapping(tiny_recipe())
    recipe["data"]["folder"] = str(folder)
    recipe["optimiser"]["steps"] = steps
    recipe["model"] = HBI_SECTION
    path.write_text(yaml.safe_dump(recipe))
    return path


def hbi_train(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from hbi_training.cli import main; main()", *map(str, arguments)]


def test_the_commands_make_data_train_stop_go_on_and_measure(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    made = subprocess.run(
        hbi_train("data", "shapes", "--out", data, "--num", 40, "--workers", 1), capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    recipe = write_recipe(tmp_path / "recipe.yaml", data, steps=400)
    train = hbi_train("retrieval", "--recipe", recipe, "--out", run, "--workers", 1, "--cpu")
    process = subprocess.Popen(train, stderr=subprocess.PIPE, text=True)
    while not list((run / "checkpoints").glob("step_*")) and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "the same command goes on from there" in stderr
    assert process.returncode == 130, stderr
    stopped = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))

    shorter = subprocess.run([*train, "--set", "optimiser.steps=401"], capture_output=True, text=True)
    assert shorter.returncode == 1
    assert "begun with another recipe" in shorter.stderr
    write_recipe(recipe, data, steps=stopped + 2)
    finished = subprocess.run([*train, "--restart"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    measured = subprocess.run(
        hbi_train("evaluate", run / "model", "--data", data, "--save", "--workers", 1), capture_output=True, text=True
    )
    assert measured.returncode == 0, measured.stderr
    figures = json.loads(measured.stdout)
    assert figures["test/clips"] == 4
    assert 0 <= figures["test/text_to_video/R@1"] <= 100
    assert load_checkpoint(run / "model").provenance["metrics"]["test/clips"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrieval", "--recipe", "/nowhere.yaml"], "cannot read the recipe /nowhere.yaml"),
        (["retrieval", "--recipe", "/nowhere.yaml", "--set", "steps"], "--set takes KEY=VALUE"),
        (["evaluate", "/nowhere", "--data", "/nowhere"], "/nowhere has no config.json"),
        (["data", "shapes", "--out", "x", "--num", "20", "--num-val", "20"], "leaves no training clips"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str) -> None:
    result = subprocess.run(hbi_train(*arguments), capture_output=True, text=True)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
