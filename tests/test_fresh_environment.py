"""A user's first commands, in a new virtual environment without PyTorch, with a hub on loopback."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.builders.fresh_environment import FreshEnvironment, make_environment
from tests.builders.hub_server import Hub, running_hub
from tests.builders.tiny_clip import write_tiny_clip
from tests.paths import ROOT

pytestmark = pytest.mark.slow
SAMPLES = ROOT / "samples"
SOME_FAILED = 3
"""Exit code of a search of the samples: one of them is damaged on purpose."""
ALL = ("--min-match", "0")
"""Leaves out no result: the weights are random."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running_hub({"tiny/clip": write_tiny_clip(tmp_path_factory.mktemp("served") / "clip")}) as running:
        yield running


@pytest.fixture(scope="module")
def environment(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """The project with its extras for the processor, `everyday` and timelines, of a user who has nothing yet."""
    folder = tmp_path_factory.mktemp("fresh")
    return make_environment(folder / "venv", hub.environment(folder), "cpu", "everyday", "timeline")


def test_no_pytorch_is_installed(environment: FreshEnvironment) -> None:
    script = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'hbi_infer') if u.find_spec(n)])"
    assert environment.run("python", "-c", script).stdout == "['hbi_infer']\n"


def test_the_first_search_downloads_converts_and_searches(environment: FreshEnvironment, hub: Hub) -> None:
    search = ("retrieve", "--videos", SAMPLES, "--bundle", "tiny/clip", "--query", "a dog on a beach", *ALL, "--json")
    first = environment.run("hbi-infer", *search, expected=SOME_FAILED)
    document = json.loads(first.stdout)
    assert document["model"]["name"] == "tiny/clip"
    assert len(document["answers"][0]["results"]) == 10
    assert f"note: looking tiny/clip up in {hub.url}" in first.stderr
    commit = hub.commit("tiny/clip")
    assert hub.asked()[0] == "GET /api/models/tiny/clip/revision/main?blobs=true"
    assert {path.rpartition("/")[0] for path in hub.asked()[1:]} == {f"GET /tiny/clip/resolve/{commit}"}
    hub.requests.clear()
    again = environment.run("hbi-infer", *search)
    assert json.loads(again.stdout)["answers"] == document["answers"]
    assert hub.requests == []


def test_python_loads_a_model_by_name(environment: FreshEnvironment) -> None:
    script = "from hbi_infer import HBI; hbi = HBI.load('tiny/clip'); print(hbi.bundle.manifest.provenance.origin)"
    assert environment.run("python", "-c", script).stdout == "tiny/clip\n"


def test_models_are_listed_chosen_and_removed(environment: FreshEnvironment) -> None:
    environment.run("hbi-infer", "models", "get", "tiny/clip@v1")
    environment.run("hbi-infer", "models", "use", "tiny/clip@v1")
    models = json.loads(environment.run("hbi-infer", "models", "--json").stdout)["models"]
    assert [each["name"] for each in models if each["is_default"]] == ["tiny/clip@v1"]
    assert "\norigin  tiny/clip at " in environment.run("hbi-infer", "info").stdout
    environment.run("hbi-infer", "models", "remove", "tiny/clip@v1")
    assert environment.run("hbi-infer", "info").stdout.startswith("name    shapes")


def test_the_first_lines_of_the_readme_work_offline(environment: FreshEnvironment) -> None:
    offline = FreshEnvironment(environment.folder, {**environment.variables, "HF_ENDPOINT": "http://127.0.0.1:9"})
    query = "a small red circle moves left and then a blue square blinks"
    found = offline.run(
        "hbi-infer", "retrieve", "--videos", SAMPLES, "--query", query, "--top-k", 1, expected=SOME_FAILED
    )
    assert "small-red-circle-moves-left-then-blue-square-blinks" in found.stdout.splitlines()[0]


def test_pictures_and_joined_queries_are_searched_for(environment: FreshEnvironment, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.png")
    search = ("retrieve", "--videos", SAMPLES, "--bundle", "shapes", *ALL, "--json")
    liked = json.loads(environment.run("hbi-infer", *search, "--like", tmp_path / "photo.png").stdout)
    assert len(liked["answers"][0]["results"]) > 1
    queries = ("--query", "a red circle", "--query", "a blue square", "--all", "--without", "a green ring")
    joined = json.loads(environment.run("hbi-infer", *search, *queries).stdout)
    assert len(joined["answers"]) == 1
    assert len(joined["answers"][0]["results"]) > 1


def test_results_become_videos_a_sheet_and_timelines(environment: FreshEnvironment, tmp_path: Path) -> None:
    search = ("retrieve", "--videos", SAMPLES, "--bundle", "shapes", *ALL, "--query", "a red circle", "--top-k", 2)
    files = [tmp_path / name for name in ("sheet.png", "sheet.html", "cut.otio", "cut.edl", "cut.fcpxml")]
    environment.run("hbi-infer", *search, "--save-clips", tmp_path / "clips", "--sheet", files[0], "--edl", files[2])
    environment.run("hbi-infer", *search, "--sheet", files[1], "--edl", files[3])
    environment.run("hbi-infer", *search, "--edl", files[4])
    assert all(file.stat().st_size > 100 for file in files)
    assert len(list((tmp_path / "clips").iterdir())) == 2


def test_a_folder_is_watched_until_ctrl_c(environment: FreshEnvironment, tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "two-big-red-rings-move-left.avi", tmp_path / "rings.avi")
    process = environment.start("hbi-infer", "index", tmp_path, "--bundle", "shapes", "--watch", "--json")
    try:
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [each["event"] for each in events] == ["watching", "added"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_folder_is_converted(environment: FreshEnvironment, hub: Hub, tmp_path: Path) -> None:
    environment.run("hbi-export", "clip", hub.models["tiny/clip"], "-o", tmp_path / "mine")
    assert environment.run("hbi-infer", "info", tmp_path / "mine").stdout.startswith("name    clip\n")


def test_everyday_is_built_from_packages_and_asks_nothing_of_the_hub(environment: FreshEnvironment, hub: Hub) -> None:
    hub.requests.clear()
    search = ("retrieve", "--videos", SAMPLES, "--bundle", "everyday", "--query", "a traffic light", *ALL, "--json")
    done = environment.run("hbi-infer", *search, expected=SOME_FAILED)
    document = json.loads(done.stdout)
    assert document["model"]["name"] == "everyday"
    assert len(document["answers"][0]["results"]) > 1
    assert "note: building the bundle of everyday" in done.stderr
    assert hub.requests == []


def test_the_doctor_is_content(environment: FreshEnvironment) -> None:
    assert json.loads(environment.run("hbi-infer", "doctor", "--json").stdout)["healthy"] is True
