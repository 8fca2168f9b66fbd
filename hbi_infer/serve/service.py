"""The state of a running service: what is served, the queues, the workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request

from hbi_infer.errors import HBIError
from hbi_infer.serve.batching import TextBatcher
from hbi_infer.serve.converted import Converted
from hbi_infer.serve.guard import Sessions
from hbi_infer.serve.indexing import Indexer
from hbi_infer.serve.job_queue import JobQueue
from hbi_infer.serve.library import Collection, Library
from hbi_infer.serve.metrics import Metrics
from hbi_infer.serve.settings import ServeOptions
from hbi_infer.serve.thumbnails import Thumbnails
from hbi_infer.tasks.texts import EncodedTexts


class Service:
    """The state that all routes share. It runs within `running`.

    Args:
        options: Options of the service.
        library: The served folders and models.

    Attributes:
        options: Options of the service.
        library: The served folders and models.
        metrics: Counters and times.
        sessions: Sessions of those who have logged in.
        searches: Threads that search.
        pictures: Threads that wait for thumbnails, and that look after files.
        uploads: Threads that search with pictures of requests.
        tasks: Threads that answer, caption and explain.
        conversions: The thread that converts and cuts videos.
        converted: Videos that were converted for browsers; for that thread alone.
        thumbnails: Pictures of clips.
        indexers: Updates of the indexes, by collection.
        num_listeners: Number of clients that are told of updates.
        is_ready: Whether requests are answered, and go on to be.
    """

    def __init__(self, options: ServeOptions, library: Library) -> None:
        limits = options.limits
        self.options, self.library = options, library
        self.sessions = Sessions(options.token)
        self.metrics = Metrics()
        self.searches = self._queue("searches", limits.threads, limits.waiting)
        self.pictures = self._queue("pictures", limits.media_workers, limits.media_waiting)
        self.uploads = self._queue("pictures to search with", 1, limits.uploads_waiting)
        self.tasks = self._queue("questions", limits.task_threads, limits.tasks_waiting)
        self.conversions = self._queue("videos to convert", 1, limits.conversions_waiting)
        self.converted = Converted(limits.convert_cache_bytes, limits.convert_video_seconds)
        self.thumbnails = Thumbnails(limits.thumbnail_cache_bytes)
        self.indexers = {
            key: Indexer(each, options.workers, library.shown) for key, each in library.collections.items()
        }
        self.num_listeners = 0
        self._queues = (self.searches, self.pictures, self.uploads, self.tasks, self.conversions)
        self.metrics.watch(library, self._queues, lambda: self.num_listeners)
        self.is_ready = False
        self._batchers: dict[int, TextBatcher] = {}
        self._num_encoding = 0

    def _queue(self, what: str, threads: int, waiting: int) -> JobQueue:
        return JobQueue(what, threads=threads, waiting=waiting, on_stage=self.metrics.on_stage)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the service for as long as the block."""
        models = {id(each.model): each.model for each in self.library.collections.values()}
        self._batchers = {
            key: TextBatcher(model, self._is_crowded, self.metrics.batches.observe) for key, model in models.items()
        }
        for batcher in self._batchers.values():
            with suppress(HBIError):  # searches say what is wrong
                await batcher.encode(["warm"])  # the first run of a graph takes longer
        if self.options.update:
            for indexer in self.indexers.values():
                indexer.start()
        self.is_ready = True
        try:
            yield
        finally:
            self.is_ready = False
            for batcher in self._batchers.values():
                await batcher.close()
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for indexer in self.indexers.values():
            indexer.stop()
        for indexer in self.indexers.values():
            indexer.wait(self.options.limits.stop_seconds)
        for queue in self._queues:
            queue.close()
        self.thumbnails.close()
        self.converted.close()
        self.library.close()

    def _is_crowded(self) -> bool:
        return self._num_encoding > 1

    async def encode(self, collection: Collection, texts: tuple[str, ...]) -> EncodedTexts:
        """Encodes the sentences of a request, together with those of others.

        Raises:
            Problem: Too many searches wait already.
        """
        self.searches.check_room(self._num_encoding)
        self._num_encoding += 1
        started = time.monotonic()
        try:
            return await self._batchers[id(collection.model)].encode(texts)
        finally:
            self._num_encoding -= 1
            self.metrics.on_stage("encode", time.monotonic() - started)


def service_of(request: Request) -> Service:
    """Returns the service that a request came to."""
    service: Service = request.app.state.service
    return service
