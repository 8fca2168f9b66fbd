"""Indexing while the service runs: started, watched and stopped by requests, one update of an index at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from hbi_infer.errors import HBIError
from hbi_infer.index.update import IndexProgress, VideoChange
from hbi_infer.serve.library import Collection, shown_path

_LOG = logging.getLogger("hbi_infer.serve")


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """The state of an update.

    Attributes:
        running: Whether an update goes on.
        waiting: Whether it waits for another process that updates this index.
        done: Number of videos that are stored or failed.
        total: Number of videos that the update has to read; 0 until it knows.
        failed: Number of those that failed.
        current: Path of the video that was done last; empty before the first.
        clips: Number of clips that were stored.
        error: Why the last update ended early; empty if it did not.
    """

    running: bool = False
    waiting: bool = False
    done: int = 0
    total: int = 0
    failed: int = 0
    current: str = ""
    clips: int = 0
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return asdict(self)


class Indexer:
    """Updates the index of a collection in a thread.

    Args:
        collection: The collection.
        workers: Number of processes that decode; None for the usual number.
        shown: Makes the message of an error fit to be sent.

    Attributes:
        state: The state of the update that runs, or of the last one.
    """

    def __init__(self, collection: Collection, workers: int | None, shown: Callable[[str], str]) -> None:
        self.state = IndexState()
        self._collection, self._workers, self._shown = collection, workers, shown
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts an update, unless one runs."""
        with self._lock:
            if self.state.running:
                return
            self._is_stopped.clear()
            self.state = IndexState(running=True)
            self._thread = threading.Thread(target=self._run, daemon=True, name="hbi-index")
            self._thread.start()

    def stop(self) -> None:
        """Lets the update end after the video that is being stored; what is stored is kept."""
        self._is_stopped.set()

    def wait(self, seconds: float) -> None:
        """Waits until no update runs, at most so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        error = ""
        try:
            with self._collection.open_writer() as index:
                index.update(
                    workers=self._workers,
                    progress=self._on_progress,
                    on_wait=self._on_wait,
                    on_change=self._on_change,
                )
        except _StoppedError:
            error = "it was stopped; what was indexed is kept"
        except HBIError as met:
            error = self._shown(str(met))
        except Exception:  # noqa: BLE001 - a thread has nobody else to tell
            _LOG.exception("a bug in an update of %s", self._collection.name)
            error = "the service has a bug here; its log says more"
        finally:
            self.state = replace(self.state, running=False, waiting=False, error=error)

    def _on_wait(self) -> None:
        self.state = replace(self.state, waiting=True)

    def _on_progress(self, progress: IndexProgress) -> None:
        if self._is_stopped.is_set():
            raise _StoppedError
        self.state = replace(
            self.state,
            waiting=False,
            done=progress.videos_done,
            total=progress.videos_total,
            clips=progress.clips,
            current=shown_path(progress.path),
        )

    def _on_change(self, change: VideoChange) -> None:
        if change.kind == "failed":
            self.state = replace(self.state, failed=self.state.failed + 1)


class _StoppedError(Exception):
    """An update was asked to stop."""
