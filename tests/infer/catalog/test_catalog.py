"""Models by name: what is used, got, kept and removed, with a hub on loopback and several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from hbi_infer.catalog.catalog import Catalog
from hbi_infer.catalog.listener import Listener
from hbi_infer.catalog.names import EVERYDAY, HubName, NameWarning
from hbi_infer.catalog.settings import settings_file, write_default
from hbi_infer.catalog.shelf import Shelf
from hbi_infer.errors import BundleError, HubError, InputError
from hbi_infer.model.bundle import Bundle, default_bundle_path
from tests.builders.hub_server import Hub, ask_in_this_process, running_hub, write_random_model
from tests.builders.tiny_bundle import write_tiny_bundle
from tests.paths import ROOT


class TinyMakers:
    """Makes the same tiny bundle of everything; notes what it is asked for."""

    def __init__(self, version: str = "1") -> None:
        self.number, self.asked = version, []
        self.fault: Exception | None = None
        self.refused: Exception | None = None

    def version(self, name: str | HubName) -> str:
        return self.number

    def check(self, source: Path | str) -> None:
        self.asked.append(("check", sorted(file.name for file in Path(source).iterdir())))
        if self.refused:
            raise self.refused

    def make(self, name: str | HubName, source: Path | str, out: Path | str, commit: str, listener: Listener) -> None:
        listener.step(f"making {name}")
        self.asked.append(("make", str(name), commit))
        if self.fault:
            raise self.fault
        write_tiny_bundle(Path(out))


@pytest.fixture
def makers() -> TinyMakers:
    return TinyMakers()


@pytest.fixture
def catalog(tmp_path: Path, makers: TinyMakers, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The catalog of a user who has nothing, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("HBI_BUNDLE", raising=False)
    return Catalog(makers, Shelf(tmp_path / "data"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub({"tiny/clip": write_random_model(tmp_path / "served")}) as running:
        ask_in_this_process(running, tmp_path, monkeypatch)
        yield running


def test_words_and_paths_ask_nothing_of_the_hub(catalog: Catalog, hub: Hub, makers: TinyMakers) -> None:
    assert catalog.resolve() == catalog.resolve("shapes") == default_bundle_path()
    assert catalog.resolve(Path("tiny/clip")) == catalog.resolve("./tiny/clip") == Path("tiny/clip")
    built = catalog.resolve(EVERYDAY)
    assert Bundle.load(built).manifest.name == "tiny"
    assert catalog.resolve(EVERYDAY) == built
    assert makers.asked == [("make", "everyday", "")]
    assert hub.requests == []


def test_a_model_of_the_hub_is_got_once(catalog: Catalog, hub: Hub, makers: TinyMakers) -> None:
    steps: list[str] = []
    path = catalog.resolve("tiny/clip", Listener(steps.append))
    commit = hub.commit("tiny/clip")
    assert path == catalog.shelf.folder / "bundles" / "tiny--clip" / f"{commit}-1"
    Bundle.load(path).verify()
    assert makers.asked == [
        ("check", ["config.json", "tokenizer.json"]),  # before the weights are downloaded
        ("make", "tiny/clip", commit),
    ]
    assert steps == [
        f"looking tiny/clip up in {hub.url}",
        "downloading 0.1 MB of tiny/clip",
        "building the bundle of tiny/clip",
        "making tiny/clip",
    ]
    hub.requests.clear()
    assert catalog.resolve("tiny/clip") == catalog.resolve(f"tiny/clip@{commit}") == path
    assert hub.requests == []
    assert catalog.shelf.unfinished() == {}


def test_get_asks_for_the_newest_commit(catalog: Catalog, hub: Hub, makers: TinyMakers) -> None:
    first = catalog.get("tiny/clip")
    assert catalog.get("tiny/clip") == first
    assert len(makers.asked) == 2
    (hub.models["tiny/clip"] / "config.json").write_text('{"model_type": "clip", "new": 1}')
    assert catalog.resolve("tiny/clip") == first
    second = catalog.get("tiny/clip")
    assert second.name == f"{hub.commit('tiny/clip')}-1"
    assert catalog.resolve("tiny/clip") == second
    assert not first.exists()


def test_get_makes_a_damaged_bundle_anew(catalog: Catalog, hub: Hub) -> None:
    path = catalog.get("tiny/clip")
    (path / "text_encoder.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="altered or damaged"):
        Bundle.load(path).verify()
    assert catalog.get("tiny/clip") == path
    Bundle.load(path).verify()


def test_another_version_of_the_converter_makes_the_bundle_anew(catalog: Catalog, hub: Hub) -> None:
    old = catalog.resolve("tiny/clip")
    newer = Catalog(TinyMakers("2"), catalog.shelf)
    ((_, listed), _) = newer.at_hand()
    assert (listed.name, listed.is_current) == ("tiny/clip", False)
    assert newer.resolve("tiny/clip").name == f"{hub.commit('tiny/clip')}-2"
    assert not old.exists()


def test_the_default(catalog: Catalog, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = catalog.use("tiny/clip@v1")
    (Path.cwd() / "tiny" / "clip@v1").mkdir(parents=True)  # has no say in what the settings mean
    assert catalog.resolve() == path
    write_tiny_bundle(Path.cwd() / "mine")
    assert catalog.use("mine") == Path("mine")
    monkeypatch.chdir("/")
    assert catalog.resolve().name == "mine"
    monkeypatch.setenv("HBI_BUNDLE", "hub:tiny/clip@v1")
    assert catalog.resolve() == path
    assert catalog.resolve("shapes") == default_bundle_path()


def test_a_default_that_cannot_be_used_is_told_with_its_source(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_default(str(tmp_path / "gone"), settings_file())
    with pytest.raises(InputError) as caught:
        catalog.resolve()
    assert str(caught.value) == (
        f"there is no bundle at {tmp_path}/gone, which {settings_file()} names: choose another default with: hbi-infer "
        "models use NAME"
    )
    write_default("a/b/c", settings_file())
    with pytest.raises(InputError, match=r"settings.toml names no model \('a/b/c' is neither a full path nor the name"):
        catalog.resolve()
    monkeypatch.setenv("HBI_BUNDLE", "everday")
    with pytest.raises(InputError, match=r"^HBI_BUNDLE names no model \(.*is everyday\): set HBI_BUNDLE to the name"):
        catalog.resolve()
    monkeypatch.setenv("HBI_BUNDLE", "./gone")
    with pytest.raises(InputError, match="there is no bundle at gone, which HBI_BUNDLE names: set HBI_BUNDLE"):
        catalog.resolve()


def test_what_cannot_be_used_does_not_become_the_default(catalog: Catalog) -> None:
    Path("empty").mkdir()
    with pytest.raises(BundleError, match=r"empty has no bundle.json"):
        catalog.use("empty")
    assert not settings_file().exists()


def test_a_local_folder_goes_before_the_hub(catalog: Catalog, hub: Hub) -> None:
    write_tiny_bundle(Path("tiny/clip"))
    with pytest.warns(NameWarning, match="tiny/clip is taken for"):
        assert catalog.resolve("tiny/clip") == Path("tiny/clip")
    assert hub.requests == []
    assert catalog.resolve("hub:tiny/clip").name == f"{hub.commit('tiny/clip')}-1"


def test_what_is_at_hand(catalog: Catalog, hub: Hub) -> None:
    catalog.resolve("tiny/clip@v1")
    catalog.resolve(EVERYDAY)
    write_tiny_bundle(Path("mine"), "qa")
    catalog.use("mine")
    (Path.cwd() / "mine" / "text_encoder.onnx").touch()
    found, damaged = catalog.at_hand()
    assert damaged == []
    assert [(each.name, each.revision, each.is_default, each.tasks) for each in found] == [
        ("shapes", "", False, ("retrieve", "qa", "caption")),
        ("everyday", "", False, ("retrieve",)),
        ("tiny/clip@v1", hub.commit("tiny/clip"), False, ("retrieve",)),
        (str(Path.cwd() / "mine"), "", True, ("retrieve", "qa")),
    ]
    assert all(each.is_current for each in found)
    assert found[2].size_bytes == sum(
        file.stat().st_size for file in found[2].path.glob("*.*") if file.name != "bundle.json"
    )
    assert abs(found[2].made.timestamp() - time.time()) < 60


def test_a_damaged_bundle_is_told_beside_the_list(catalog: Catalog, hub: Hub) -> None:
    (catalog.resolve("tiny/clip") / "text_encoder.onnx").unlink()
    found, damaged = catalog.at_hand()
    assert [each.name for each in found] == ["shapes"]
    assert len(damaged) == 1
    assert damaged[0].startswith("tiny/clip cannot be used: ")


def test_removing(catalog: Catalog, hub: Hub) -> None:
    catalog.resolve("tiny/clip")
    size_bytes, was_default = catalog.remove("tiny/clip")
    assert (size_bytes > 1000, was_default) == (True, False)
    assert [each.name for each in catalog.at_hand()[0]] == ["shapes"]
    with pytest.raises(InputError, match=r"^tiny/clip is not on this machine: hbi-infer models lists what is$"):
        catalog.remove("tiny/clip")
    with pytest.raises(InputError, match=r"^shapes is a part of hbi-infer and cannot be removed$"):
        catalog.remove("shapes")
    with pytest.raises(InputError, match="was not built by hbi-infer, which leaves it as it is"):
        catalog.remove("./mine")
    with pytest.raises(InputError, match="shapes is on this machine already: give a model of the hub, or everyday"):
        catalog.get("shapes")


def test_removing_the_default_makes_the_embedded_model_the_default(catalog: Catalog, hub: Hub) -> None:
    catalog.use("tiny/clip@v1")
    catalog.resolve("tiny/clip")
    assert not catalog.remove("tiny/clip")[1]
    assert catalog.remove("tiny/clip@v1")[1]
    assert catalog.resolve() == default_bundle_path()


def test_a_kind_that_is_not_supported_costs_no_download(catalog: Catalog, hub: Hub, makers: TinyMakers) -> None:
    makers.refused = BundleError("it is a bert")
    with pytest.raises(BundleError, match="it is a bert"):
        catalog.resolve("tiny/clip")
    assert not [path for path in hub.asked() if path.endswith("safetensors")]
    assert catalog.shelf.unfinished() == {}


def test_files_that_cannot_be_converted_are_thrown_away_and_those_of_a_full_disk_kept(
    catalog: Catalog, hub: Hub, makers: TinyMakers
) -> None:
    makers.fault = BundleError("cannot write: No space left on device")
    makers.fault.__cause__ = OSError()
    with pytest.raises(BundleError, match="No space"):
        catalog.resolve("tiny/clip")
    assert catalog.shelf.unfinished()["tiny/clip"] > 100_000
    makers.fault = BundleError("weights of another shape")
    with pytest.raises(BundleError, match="another shape"):
        catalog.resolve("tiny/clip")
    assert catalog.shelf.unfinished() == {}
    assert catalog.shelf.shelved() == []


def test_a_disk_without_room_is_told_before_the_download(catalog: Catalog, hub: Hub) -> None:
    folder = hub.models["tiny/clip"]
    (folder / "model.safetensors").rename(folder / "model.safetensors.index.json")
    for number in range(1000):
        name = f"model-{number:05}-of-01000.safetensors"
        (folder / name).touch()
        hub.faults.stated_bytes[name] = 2**35
    with pytest.raises(
        HubError, match=r"^tiny/clip needs 68,719\.48 GB while it is converted, and .* GB free: free space"
    ):
        catalog.resolve("tiny/clip")
    assert len(hub.requests) == 1


def test_no_network_and_no_cache(catalog: Catalog, hub: Hub) -> None:
    path = catalog.resolve("tiny/clip")
    hub.close()
    assert catalog.resolve("tiny/clip") == path
    with pytest.raises(HubError, match=r"^cannot get tiny/clip from"):
        catalog.get("tiny/clip")
    assert catalog.resolve("tiny/clip") == path


def test_the_cache_of_the_hubs_library_serves_without_a_network(
    catalog: Catalog, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        hf_hub_download("tiny/clip", name, cache_dir=constants.HF_HUB_CACHE, endpoint=hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    steps: list[str] = []
    path = catalog.resolve("tiny/clip", Listener(steps.append))
    assert path.name == f"{hub.commit('tiny/clip')}-1"
    assert hub.requests == []
    assert steps[1].startswith("HF_HUB_OFFLINE is set and tiny/clip is not on this machine")
    assert steps[1].endswith("; the cache of huggingface_hub has tiny/clip and is used")


BUILD = """
import sys, time
from pathlib import Path
from hbi_infer.catalog.catalog import Catalog
from hbi_infer.catalog.listener import Listener
from tests.infer.catalog.test_catalog import TinyMakers

class SlowMakers(TinyMakers):
    def make(self, name, source, out, commit, listener):
        super().make(name, source, out, commit, listener)
        print("made", flush=True)
        time.sleep(float(sys.argv[1]))

print(Catalog(SlowMakers()).resolve("tiny/clip", Listener(lambda text: print(text, flush=True))), flush=True)
"""


def builder(hub: Hub, folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that gets the model and takes its time to build it."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **hub.environment(folder)},
    )


def test_two_processes_build_once(hub: Hub, tmp_path: Path) -> None:
    processes = [builder(hub, tmp_path, 1.0) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert sorted(line for lines in outputs for line in lines if line in ("made",) or "another" in line) == [
        "another process is getting a model; waiting until it is done",
        "made",
    ]
    assert len([path for path in hub.asked() if path.endswith("model.safetensors")]) == 1


@pytest.mark.parametrize("moment", ["downloading", "made"])
def test_a_killed_process_leaves_nothing_that_is_taken_for_a_bundle(hub: Hub, tmp_path: Path, moment: str) -> None:
    hub.faults.seconds = 0.5 if moment == "downloading" else 0.0
    killed = builder(hub, tmp_path, 60.0)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith(moment):
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    shelf = Shelf(tmp_path / "data" / "hbi-infer")
    assert shelf.shelved() == []
    hub.faults.seconds = 0.0
    again = builder(hub, tmp_path, 0.0)
    path = Path(again.communicate(timeout=60)[0].splitlines()[-1])
    Bundle.load(path).verify()
    assert [each.path for each in shelf.shelved()] == [path]
    assert list((shelf.folder / "building").iterdir()) == []
    assert shelf.unfinished() == {}
    record = json.loads((path.parent / "revisions.json").read_text())
    assert record == {"model": "tiny/clip", "commits": {"main": hub.commit("tiny/clip")}}
