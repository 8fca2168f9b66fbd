"""Downloads over real HTTP: what is asked for, what is kept, and one line for each fault."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from hbi_infer.catalog.hub import DESCRIPTIONS, HubModel, download, look_up, needed
from hbi_infer.catalog.names import HubName
from hbi_infer.errors import HubError
from tests.builders.hub_server import Hub, ask_in_this_process, running_hub, write_random_model


def write_random_weights(folder: Path) -> None:
    """Put weights there that arrive in several parts."""
    (folder / "model.safetensors").write_bytes(os.urandom(1_000_000))


NAME = HubName("tiny/clip")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, that `huggingface_hub` asks; its cache is empty."""
    with running_hub({"tiny/clip": write_random_model(tmp_path / "served")}) as running:
        ask_in_this_process(running, tmp_path, monkeypatch)
        yield running


def get(tmp_path: Path, name: HubName = NAME) -> tuple[HubModel, Path]:
    """Look a model up and download all that it needs."""
    model = look_up(name)
    folder = tmp_path / "got"
    download(model, folder, model.files)
    return model, folder


def test_the_needed_files_arrive_and_nothing_else_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    model, folder = get(tmp_path)
    commit = hub.commit("tiny/clip")
    assert model.commit == commit
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        name: (hub.models["tiny/clip"] / name).read_bytes()
        for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    assert hub.asked() == [
        "GET /api/models/tiny/clip/revision/main?blobs=true",
        *(f"GET /tiny/clip/resolve/{commit}/{name}" for name in ("config.json", "tokenizer.json", "model.safetensors")),
    ]
    assert all("authorization" not in request.headers for request in hub.requests)
    assert all(request.headers["user-agent"].startswith("hbi-infer/") for request in hub.requests)


def test_progress_counts_all_files_to_their_end(hub: Hub, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    model = look_up(NAME)
    download(model, tmp_path / "got", model.files[:1], lambda *counts: told.append(counts))
    download(model, tmp_path / "got", model.files, lambda *counts: told.append(counts))
    total = sum(file.size_bytes for file in model.files)
    assert told == sorted(told)
    assert told[-1] == (total, total)


def test_what_is_there_is_not_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    model, folder = get(tmp_path)
    hub.requests.clear()
    download(model, folder, model.files)
    assert hub.asked() == []


def test_a_download_that_was_cut_is_gone_on_with_in_one_call(hub: Hub, tmp_path: Path) -> None:
    write_random_weights(hub.models["tiny/clip"])
    hub.faults.cut_after, hub.faults.cuts = {"model.safetensors": 600_000}, 1
    _, folder = get(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == (hub.models["tiny/clip"] / "model.safetensors").read_bytes()
    ranges = [request.headers.get("range") for request in hub.requests if request.path.endswith("model.safetensors")]
    assert ranges == [None, "bytes=524288-"]


def test_a_download_that_was_cut_is_gone_on_with_by_the_next_command(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    write_random_weights(hub.models["tiny/clip"])
    hub.faults.cut_after = {"model.safetensors": 600_000}
    with pytest.raises(HubError, match=r"^cannot get tiny/clip from http://127.*the same command goes on from there$"):
        get(tmp_path)
    assert not (tmp_path / "got" / "model.safetensors").exists()
    hub.faults.cut_after = {}
    hub.requests.clear()
    get(tmp_path)
    assert [request.headers.get("range") for request in hub.requests[1:]] == ["bytes=524288-"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])  # a git hash and a SHA-256
def test_an_altered_file_is_thrown_away(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.faults.altered = {name}
    with pytest.raises(HubError, match=f"^{name} of tiny/clip was altered on the way .* try again"):
        get(tmp_path)
    assert not [file.name for file in (tmp_path / "got").iterdir() if file.name.startswith(name)]
    hub.faults.altered = set()
    get(tmp_path)


def test_a_file_grows_no_larger_than_the_hub_said(hub: Hub, tmp_path: Path) -> None:
    hub.faults.longer = {"model.safetensors"}
    with pytest.raises(HubError, match="more than the 100,000 bytes that were stated arrive"):
        get(tmp_path)
    assert max(file.stat().st_size for file in (tmp_path / "got").iterdir()) <= 100_000


def test_files_of_the_hubs_own_cache_are_taken(hub: Hub, tmp_path: Path) -> None:
    commit = hub.commit("tiny/clip")
    hf_hub_download("tiny/clip", "model.safetensors", revision=commit, cache_dir=constants.HF_HUB_CACHE)
    hub.requests.clear()
    _, folder = get(tmp_path)
    assert not [path for path in hub.asked() if path.endswith("model.safetensors")]
    content = (hub.models["tiny/clip"] / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == content
    assert not (folder / "model.safetensors").is_symlink()


def test_a_damaged_file_of_the_hubs_own_cache_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    commit = hub.commit("tiny/clip")
    cached = Path(hf_hub_download("tiny/clip", "model.safetensors", revision=commit, cache_dir=constants.HF_HUB_CACHE))
    cached.resolve().write_bytes(bytes(100_000))
    _, folder = get(tmp_path)
    content = (hub.models["tiny/clip"] / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == content


def refusal(hub: Hub, tmp_path: Path, name: HubName = NAME) -> str:
    """The one line about a fault."""
    with pytest.raises(HubError) as caught:
        get(tmp_path, name)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(hub.url, "HUB")


def test_a_model_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    assert refusal(hub, tmp_path, HubName("openai/clip-vit-base-patch23")) == (
        "HUB has no model openai/clip-vit-base-patch23, or it is private: check the name, or log in with "
        "'hf auth login' or set HF_TOKEN; the nearest known model is openai/clip-vit-base-patch32"
    )


def test_a_revision_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    assert refusal(hub, tmp_path, HubName("tiny/clip", "v9")) == (
        "tiny/clip has no revision v9: give one of those at HUB/tiny/clip"
    )


def test_a_gated_model(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.gated = {"tiny/clip"}
    assert refusal(hub, tmp_path) == (
        "tiny/clip is gated: accept its terms at HUB/tiny/clip, then log in with 'hf auth login' or set HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", hub.token)
    get(tmp_path)


def test_a_private_model_needs_the_token_of_a_login(hub: Hub, tmp_path: Path) -> None:
    hub.faults.private = {"tiny/clip"}
    assert refusal(hub, tmp_path).startswith("HUB has no model tiny/clip, or it is private")
    (tmp_path / "token").write_text(hub.token)
    get(tmp_path)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "HUB answers with status 500 for tiny/clip: try again later"),
        (403, "HUB refuses tiny/clip (status 403): the token may be wrong or out of date; log in with"),
        (404, "HUB lists a file of tiny/clip and does not give it (status 404): give another revision"),
    ],
)
def test_other_refusals(hub: Hub, tmp_path: Path, status: int, message: str) -> None:
    hub.faults.status = status
    assert refusal(hub, tmp_path).startswith(message)


def test_a_file_that_is_listed_and_not_given(hub: Hub, tmp_path: Path) -> None:
    hub.faults.hidden = {"tokenizer.json"}
    assert refusal(hub, tmp_path).startswith("HUB lists a file of tiny/clip and does not give it")


@pytest.mark.parametrize("page", ["<html>Log in</html>", "[]", "{}", '{"id": 3, "sha": "..", "siblings": []}'])
def test_a_login_page_in_place_of_the_hub(hub: Hub, tmp_path: Path, page: str) -> None:
    hub.faults.page = page
    assert refusal(hub, tmp_path).startswith("HUB does not answer as the hub does for tiny/clip")


def test_no_network(hub: Hub, tmp_path: Path) -> None:
    hub.close()
    assert refusal(hub, tmp_path).startswith("cannot get tiny/clip from HUB ([Errno 111] Connection refused)")


def test_a_hub_that_does_not_go_on(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub.faults.seconds = 0.2
    sleeps: list[float] = []
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", sleeps.append)
    assert refusal(hub, tmp_path).startswith("cannot get tiny/clip from HUB (timed out): check")


def test_offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(hub, tmp_path).startswith("HF_HUB_OFFLINE is set and tiny/clip is not on this machine: unset it")
    assert hub.asked() == []


@pytest.mark.parametrize("endpoint", ["hub.example", "http://[bad", "http://127.0.0.1:99999"])
def test_an_address_that_is_none(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert endpoint in refusal(hub, tmp_path)


def test_a_full_disk(hub: Hub, tmp_path: Path) -> None:
    digest = next(file.digest for file in look_up(NAME).files if file.name == "model.safetensors")
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / f"model.safetensors.{digest[:12]}.part").symlink_to("/dev/full")
    assert refusal(hub, tmp_path) == (
        "cannot write what arrives of tiny/clip (No space left on device): free space, or set XDG_DATA_HOME to another "
        "place"
    )


def test_hashes_are_those_of_git_and_of_the_content(hub: Hub) -> None:
    files = {file.name: file.digest for file in look_up(NAME).files}
    content = (hub.models["tiny/clip"] / "config.json").read_bytes()
    assert files["config.json"] == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert (
        files["model.safetensors"]
        == hashlib.sha256((hub.models["tiny/clip"] / "model.safetensors").read_bytes()).hexdigest()
    )


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"], ["model.safetensors"]),
        (["config.json", "pytorch_model.bin", "flax_model.msgpack"], ["pytorch_model.bin"]),
        (
            ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-x.safetensors"],
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
        ),
        (
            ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
            ["open_clip_model.safetensors"],
        ),
        (["open_clip_config.json", "open_clip_pytorch_model.bin"], ["open_clip_pytorch_model.bin"]),
        (
            ["config.json", "open_clip_config.json", "open_clip_model.safetensors", "model.safetensors"],
            ["model.safetensors"],
        ),
        (["config.json", "../model.safetensors", "folder/model.safetensors"], []),
        (["README.md"], []),
    ],
)
def test_which_files_are_needed(names: list[str], weights: list[str]) -> None:
    assert needed(names) == sorted(set(names) & set(DESCRIPTIONS)) + weights
