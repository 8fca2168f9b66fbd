"""Counters and times, as Prometheus reads them."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient


def samples(client: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """The value of every sample, by name and values of its labels, in the order of their names."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_requests_are_counted_by_route(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    before = samples(client)
    for _ in range(3):
        client.post("/v1/search", json={"query": "red"})
    client.get(videos["red.mp4"]["stream"])
    client.get("/v1/videos/nothing")
    after = samples(client)

    def grown(*key: str) -> float:
        return after[key[0], key[1:]] - before.get((key[0], key[1:]), 0.0)

    assert grown("hbi_requests_total", "POST", "/v1/search", "200") == 3
    assert grown("hbi_requests_total", "GET", "/v1/videos/{id}/stream", "200") == 1
    assert grown("hbi_requests_total", "GET", "/v1/videos/{id}", "404") == 1
    assert grown("hbi_response_start_seconds_count", "/v1/search") == 3
    assert grown("hbi_stage_seconds_count", "search") == 3
    assert grown("hbi_text_batch_sentences_sum") == 3


def test_indexes_and_queues(client: TestClient) -> None:
    found = samples(client)
    collection = client.get("/v1/collections").json()["collections"][0]["id"]
    of = (collection, "videos")
    assert found["hbi_index_clips", of] == 4
    assert found["hbi_index_videos", of] == 3
    assert found["hbi_index_failed_videos", of] == 1
    assert found["hbi_index_size_bytes", of] > 10_000
    assert found["hbi_index_usable", of] == 1
    assert found["hbi_queue_waiting_jobs", ("searches",)] == 0
    assert found["process_resident_memory_bytes", ()] > 10**7


def test_a_client_cannot_make_up_labels(client: TestClient) -> None:
    for number in range(20):
        client.get(f"/made-up/{number}")
        client.get(f"/v1/videos/{number}")
        client.request(f"MADE{number}", "/v1/videos")
        client.get("/", headers={"host": f"made-up-{number}"})
    text = client.get("/metrics").text
    assert "made-up" not in text
    assert "MADE" not in text
    assert 'method="other"' in text
