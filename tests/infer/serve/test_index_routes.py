"""Updates over HTTP, and their events."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.testclient import TestClient

from tests.builders.service import running, wait_until_indexed


def test_the_state_of_an_update(client: TestClient) -> None:
    state = client.get("/v1/index").json()
    assert state.keys() >= {"running", "done", "total", "failed", "current", "clips"}
    assert client.post("/v1/index", json={"action": "begin"}).status_code == 400
    assert client.post("/v1/index", json={}).status_code == 400
    assert client.post("/v1/index", json={"action": "start"}).status_code == 202
    assert client.post("/v1/index", json={"action": "stop"}).status_code == 202


def test_events_tell_of_an_update_to_its_end(library: Path, tmp_path: Path) -> None:
    """Over real HTTP: the page can be used meanwhile."""
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    with running("--videos", library / "videos", "--bundle", library / "bundle", env=env) as started:
        states = []
        with started.client.stream("GET", "/v1/index/events") as listening:
            assert listening.headers["content-type"].startswith("text/event-stream")
            for line in listening.iter_lines():
                if line.startswith("data: "):
                    states.append(json.loads(line.removeprefix("data: ")))
                    if not states[-1]["running"]:
                        break
        assert (states[-1]["done"], states[-1]["failed"], states[-1]["error"]) == (4, 1, "")
        assert wait_until_indexed(started.client) == states[-1]
        assert started.client.get("/v1/videos").json()["total"] == 3
