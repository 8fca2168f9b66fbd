"""Counters and times of the service, in the format of Prometheus and in base units."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hbi_infer.serve.job_queue import JobQueue
from hbi_infer.serve.library import Library
from hbi_infer.serve.problems import CLIENT_GONE

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32)
NO_ROUTE = "none"
"""Route of requests that reached none: those that were refused, or for what is not there."""


class Metrics:
    """All metrics of a service.

    Attributes:
        requests: Number of requests, by route, method and status.
        seconds: Time until a response begins, by route.
        stages: Time of the stages of requests.
        batches: Number of sentences in a run of the graph.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("hbi_requests", "Requests", ["route", "method", "status"], registry=registry)
        self.seconds = Histogram(
            "hbi_response_start_seconds", "Time until a response begins", ["route"], buckets=SECONDS, registry=registry
        )
        self.stages = Histogram(
            "hbi_stage_seconds", "Time of a stage of requests", ["stage"], buckets=SECONDS, registry=registry
        )
        self.batches = Histogram(
            "hbi_text_batch_sentences", "Sentences that were encoded together", buckets=BATCHES, registry=registry
        )
        ProcessCollector(registry=registry)

    def watch(self, library: Library, queues: Sequence[JobQueue], listeners: Callable[[], int]) -> None:
        """Adds what is read when it is asked for: queues, indexes, listeners.

        Args:
            library: The served folders and models.
            queues: Queues of the service.
            listeners: Tells the number of clients that are told of updates.
        """
        self._registry.register(_Watched(library, queues, listeners))

    def on_stage(self, stage: str, seconds: float) -> None:
        """Counts a stage."""
        self.stages.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """Returns all metrics as text; indexes are read for it."""
        return generate_latest(self._registry)


class _Watched(Collector):
    def __init__(self, library: Library, queues: Sequence[JobQueue], listeners: Callable[[], int]) -> None:
        self._library, self._queues, self._listeners = library, queues, listeners

    def describe(self) -> list[Metric]:
        return []  # nothing is read before it is asked for

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("hbi_queue_jobs", "Jobs that are done or wait", labels=["queue"])
        waiting = GaugeMetricFamily("hbi_queue_waiting_jobs", "Jobs that wait", labels=["queue"])
        for queue in self._queues:
            jobs.add_metric([queue.what], queue.num_jobs)
            waiting.add_metric([queue.what], queue.num_waiting)
        yield from (jobs, waiting)
        yield GaugeMetricFamily("hbi_index_listeners", "Clients that are told of updates", self._listeners())
        yield from self._of_indexes()

    def _of_indexes(self) -> Iterator[Metric]:
        labels = ["collection", "name"]
        clips = GaugeMetricFamily("hbi_index_clips", "Clips in an index", labels=labels)
        videos = GaugeMetricFamily("hbi_index_videos", "Videos in an index", labels=labels)
        failed = GaugeMetricFamily("hbi_index_failed_videos", "Videos that could not be indexed", labels=labels)
        size = GaugeMetricFamily("hbi_index_size_bytes", "Size of an index's file", labels=labels)
        usable = GaugeMetricFamily("hbi_index_usable", "1 if an index can be read, else 0", labels=labels)
        for each in self._library.collections.values():
            of = [each.id, each.name]
            counts = each.counts()
            usable.add_metric(of, counts is not None)
            if counts is not None:
                for metric, count in zip((clips, videos, failed, size), counts, strict=True):
                    metric.add_metric(of, count)
        yield from (clips, videos, failed, size, usable)


class Measured:
    """Counts requests, and measures the time until their responses begin.

    Args:
        app: The application behind it.
        metrics: Metrics of the service.
        routes: Its routes.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[Route]) -> None:
        self._app, self._metrics = app, metrics
        self._paths: dict[object, str] = {route.endpoint: route.path for route in routes}
        self._methods = {method for route in routes for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), CLIENT_GONE

        async def noticing(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                route = self._paths.get(scope.get("endpoint"), NO_ROUTE)
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, noticing)
        finally:
            # Labels are of our own making: a client must not be able to make up new ones.
            route = self._paths.get(scope.get("endpoint"), NO_ROUTE)
            method = scope["method"] if scope["method"] in self._methods else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()
