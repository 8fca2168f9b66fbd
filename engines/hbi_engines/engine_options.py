"""Options for opening a graph in a runtime."""

from __future__ import annotations

from dataclasses import dataclass

from hbi_engines.engine_files import BuiltEngines
from hbi_engines.time_limit import LIMIT_SECONDS


@dataclass(frozen=True)
class EngineOptions:
    """Options for opening a graph.

    Attributes:
        threads: Processor threads, for runtimes that compute there.
        why: Reason for the choice of the device, for `Engine.device_reason`.
        built: Location of the graph's engines; None for a graph without a bundle.
        limit_seconds: Limit for loading the graph, and for running it once.
    """

    threads: int
    why: str
    built: BuiltEngines | None = None
    limit_seconds: float = LIMIT_SECONDS

    def on_processor(self, device: str) -> str:
        """Returns the reason of a device that computes on the processor."""
        return f"{device} ({self.threads} thread{'' if self.threads == 1 else 's'}), {self.why}"
