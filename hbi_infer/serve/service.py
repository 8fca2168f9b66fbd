"""The state of a running service: what is served, the queues, the workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request

from hbi_infer.serve.batching import TextBatcher
from hbi_infer.serve.converted import Converted
from hbi_infer.serve.guard import Sessions
from hbi_infer.serve.indexing import Indexer
from hbi_infer.serve.job_queue import JobQueue
from hbi_infer.serve.library import Collection, Library
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
        self.searches = JobQueue("searches", threads=limits.threads, waiting=limits.waiting)
        self.pictures = JobQueue("pictures", threads=limits.media_workers, waiting=limits.media_waiting)
        self.uploads = JobQueue("pictures to search with", threads=1, waiting=limits.uploads_waiting)
        self.tasks = JobQueue("questions", threads=limits.task_threads, waiting=limits.tasks_waiting)
        self.conversions = JobQueue("videos to convert", threads=1, waiting=limits.conversions_waiting)
        self.converted = Converted(limits.convert_cache_bytes, limits.convert_video_seconds)
        self.thumbnails = Thumbnails(limits.thumbnail_cache_bytes)
        self.indexers = {
            key: Indexer(each, options.workers, library.shown) for key, each in library.collections.items()
        }
        self.num_listeners = 0
        self.is_ready = False
        self._batchers: dict[int, TextBatcher] = {}
        self._num_encoding = 0

    @asynccontextmanager
    async def running(self, _app: Starlette) -> AsyncIterator[None]:
        """Runs the service for as long as the block."""
        models = {id(each.model): each.model for each in self.library.collections.values()}
        self._batchers = {key: TextBatcher(model, self._is_crowded) for key, model in models.items()}
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
        for queue in (self.searches, self.pictures, self.uploads, self.tasks, self.conversions):
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
        try:
            return await self._batchers[id(collection.model)].encode(texts)
        finally:
            self._num_encoding -= 1


def service_of(request: Request) -> Service:
    """Returns the service that a request came to."""
    service: Service = request.app.state.service
    return service
