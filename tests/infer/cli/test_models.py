"""The command `hbi-infer models`, and names of models in other commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbi_infer.catalog.settings import settings_file
from hbi_infer.catalog.shelf import data_folder
from tests.builders.command_line import on_terminal, run
from tests.builders.hub_server import Hub, ask_in_this_process, running_hub
from tests.builders.tiny_bundle import NOTICE, write_tiny_bundle
from tests.builders.tiny_clip import write_tiny_clip

ALL = ("--min-match", "0")
"""Leaves out no result: the weights are random."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP with its tokenizer, as transformers saves it."""
    return write_tiny_clip(tmp_path_factory.mktemp("served") / "clip")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has nothing yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def hub(home: Path, served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub({"tiny/clip": served}) as running:
        ask_in_this_process(running, home, monkeypatch)
        yield running


def test_a_model_of_the_hub_is_got_listed_used_and_removed(hub: Hub, home: Path, library: Path) -> None:
    commit = hub.commit("tiny/clip")
    got = run("models", "get", "tiny/clip")
    assert got.returncode == 0, got.stderr
    place = data_folder() / "bundles" / "tiny--clip"
    assert got.stdout.startswith(f"tiny/clip is ready: {place}/{commit}-")
    assert f"note: looking tiny/clip up in {hub.url}" in got.stderr.splitlines()
    assert "note: building the bundle of tiny/clip" in got.stderr.splitlines()
    listed = [line.split("\t") for line in run("models").stdout.splitlines()]
    assert [row[:4] for row in listed] == [
        ["shapes", "yes", "embedded in hbi-infer", ""],
        ["tiny/clip", "", "tiny/clip", commit],
    ]
    assert run("models", "use", "tiny/clip").stdout.startswith("tiny/clip is the default from now on: ")
    hub.requests.clear()
    search = run("retrieve", "--videos", library, "--query", "a dog", *ALL, "--json")
    assert search.returncode == 3, "a video is damaged"
    document = json.loads(search.stdout)
    assert document["model"]["path"].startswith(f"{place}/{commit}-")
    assert len(document["answers"][0]["results"]) == 3
    assert "\norigin  tiny/clip at " in run("info").stdout
    models = json.loads(run("models", "--json").stdout)["models"]
    assert [(each["name"], each["is_default"], each["revision"]) for each in models] == [
        ("shapes", False, ""),
        ("tiny/clip", True, commit),
    ]
    removed = run("models", "remove", "tiny/clip", "--json")
    assert json.loads(removed.stdout)["was_default"] is True
    assert removed.stderr == "note: tiny/clip was the default; it is shapes from now on\n"
    assert not place.exists()
    assert hub.requests == []


def test_a_search_downloads_a_model_that_is_named(hub: Hub, library: Path) -> None:
    done = run("retrieve", "--videos", library, "--query", "a dog", *ALL, "--bundle", "tiny/clip@v1")
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 3
    assert len(hub.requests) >= 3
    hub.requests.clear()
    again = run("retrieve", "--videos", library, "--query", "a dog", *ALL, "--bundle", "tiny/clip@v1")
    assert again.stdout == done.stdout
    assert hub.requests == []


def test_a_table_on_a_terminal(home: Path) -> None:
    status, shown = on_terminal("models")
    assert status == 0
    assert "models at hand" in shown
    row = next(line for line in shown.splitlines() if line.strip().startswith("shapes"))
    assert "yes" in row
    assert "embedded in hbi-infer" in row


def test_a_folder_can_be_the_default(home: Path, library: Path) -> None:
    bundle = write_tiny_bundle(home / "mine")
    used = run("models", "use", bundle, "--json")
    assert json.loads(used.stdout)["path"] == str(bundle)
    assert used.stderr == f"note: {NOTICE}\n"
    assert settings_file().read_text().splitlines()[-1] == f'bundle = "{bundle}"'
    assert f"\npath    {bundle}\n" in run("info").stdout
    assert "\npath    " + str(bundle) not in run("info", env={"HBI_BUNDLE": "shapes"}).stdout
    assert run("retrieve", "--videos", library, "-q", "red").stderr.startswith(f"note: {NOTICE}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "get", "tiny/clap"], "has no model tiny/clap, or it is private: check the name, or log in"),
        (["models", "get", "shapes"], "shapes is on this machine already: give a model of the hub, or everyday"),
        (
            ["models", "use", "everday"],
            "there is no bundle at everday and no model of that name: the nearest known model",
        ),
        (["models", "remove", "tiny/clip"], "tiny/clip is not on this machine: hbi-infer models lists what is"),
        (["models", "remove", "shapes"], "shapes is a part of hbi-infer and cannot be removed"),
        (["models", "get", "hub:tiny"], "'hub:tiny' is no name of the hub: give hub:owner/name"),
        (
            ["info", "tests/clip"],
            "there is no bundle at tests/clip, which is taken for a path because the folder tests",
        ),
        (["bench", "--bundle", "clip-vit-base-patch23"], "the nearest known model is openai/clip-vit-base-patch32"),
    ],
)
def test_errors_are_one_line(hub: Hub, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert (done.returncode, done.stdout, len(errors)) == (1, "", 1)
    assert message in errors[0]


def test_a_local_folder_that_looks_like_a_name_is_said(hub: Hub, home: Path) -> None:
    done = run("models", "use", "tests/builders")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("warning: tests/builders is taken for /")
    assert "has no bundle.json" in done.stderr.splitlines()[-1]
    assert hub.requests == []


def test_an_unfinished_download_is_told_and_thrown_away(hub: Hub, home: Path) -> None:
    hub.faults.hidden = {"model.safetensors"}
    assert run("models", "get", "tiny/clip").returncode == 1
    listed = run("models")
    assert "MB of an unfinished download of tiny/clip: hbi-infer models get tiny/clip goes on" in listed.stderr
    assert list(json.loads(run("models", "--json").stdout)["unfinished"]) == ["tiny/clip"]
    assert run("models", "remove", "tiny/clip").returncode == 0
    assert run("models").stderr == ""


def test_a_damaged_bundle_and_one_of_an_older_version_are_told(hub: Hub, home: Path) -> None:
    bundle = Path(json.loads(run("models", "get", "tiny/clip", "--json").stdout)["path"])
    bundle.rename(bundle.with_name(f"{hub.commit('tiny/clip')}-0"))
    assert run("models").stderr == "note: tiny/clip is of an older version and is made anew when it is next used\n"
    (bundle.with_name(f"{hub.commit('tiny/clip')}-0") / "text_encoder.onnx").unlink()
    assert run("models").stderr.startswith("warning: tiny/clip cannot be used: ")
