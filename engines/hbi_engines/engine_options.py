"""What a runtime is told besides the graph that it is to open."""

from __future__ import annotations

from dataclasses import dataclass

from hbi_engines.engine_files import BuiltEngines


@dataclass(frozen=True)
class Opening:
    """How to open a graph.

    Attributes:
        threads: Of the processor, for runtimes that compute there.
        why: Why this device, for `Engine.device_reason`.
        built: Where engines of the graph lie; None for a graph without a bundle.
    """

    threads: int
    why: str
    built: BuiltEngines | None = None

    def on_processor(self, device: str) -> str:
        """The reason of a device that computes on the processor."""
        return f"{device} ({self.threads} thread{'' if self.threads == 1 else 's'}), {self.why}"
