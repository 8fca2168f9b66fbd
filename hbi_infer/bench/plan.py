"""Stages and devices that `hbi-infer bench` can measure, and the plan of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hbi_infer.errors import InputError

HOST_STAGES = {"decode": "clips", "tokenise": "texts"}
"""Stage -> name of its items. These run on the processor, whatever the device."""
DEVICE_STAGES = {
    "encode": "clips",
    "text encode": "texts",
    "score": "queries",
    "similarity": "queries",
    "answer": "questions",
    "caption": "clips",
    "video end to end": "clips",
    "query end to end": "queries",
}
"""Stage -> name of its items. `score` is scoring as a search does it, on the processor; `similarity` is
`HBI.similarity`, which is a graph on a GPU. The last two are everything from a file or a text to its result."""
STAGES = HOST_STAGES | DEVICE_STAGES

TORCH_DEVICES = tuple(
    f"{place}{compiled}{precision}"
    for place, precisions in (("torch", ("", ":bf16")), ("torch-cuda", ("", ":bf16", ":fp16")))
    for compiled in ("", ":compile")
    for precision in precisions
)
"""PyTorch as a baseline: eager or compiled, on the processor or the first GPU, in float32 or autocast."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Model, devices, stages and sizes to measure.

    Attributes:
        bundle: The model; None for the embedded one.
        checkpoint: The same model as hbi-train wrote it, for PyTorch.
        devices: Names in `RUNTIMES` or `TORCH_DEVICES`; the others are compared with the first. None for all usual
            ones that can run here.
        batches: Numbers of items in a call, 1 or more.
        stages: Names in `STAGES`.
        seconds: Duration of each measurement, more than 0.
        threads: Processor threads; None for one for each physical core.
        videos: A folder of videos; None to draw some.

    Raises:
        InputError: A device or stage is unknown, or a number is too small.
    """

    bundle: Path | None = None
    checkpoint: Path | None = None
    devices: tuple[str, ...] | None = None
    batches: tuple[int, ...] = (1, 8)
    stages: tuple[str, ...] = tuple(STAGES)
    seconds: float = 2.0
    threads: int | None = None
    videos: Path | None = None

    def __post_init__(self) -> None:
        from hbi_engines.registry import RUNTIMES  # late: the command line reads the defaults of a plan

        known = (*RUNTIMES, *TORCH_DEVICES)
        if unknown := [name for name in self.devices or () if name not in known]:
            raise InputError(f"there is no device {unknown[0]!r}; choose from: {', '.join(known)}")
        if unknown := [name for name in self.stages if name not in STAGES]:
            raise InputError(f"there is no stage {unknown[0]!r}; choose from: {', '.join(STAGES)}")
        if not self.batches or min(self.batches) < 1:
            raise InputError(f"the batches are {self.batches}; give sizes of 1 or more")
        if not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds}; it must be greater than 0")
