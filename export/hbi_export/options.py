"""Options of the commands; each default is written here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from hbi_engines.engine import AxisRange

if TYPE_CHECKING:
    from hbi_engines.half_products import Precision
    from hbi_training.weights.rounding import Weights

FlavorOption: TypeAlias = Literal["auto", "tensorrt", "rtx"]
Backend: TypeAlias = Literal["onnx", "tensorrt"]

WEIGHTS: Weights = "float32"
"""Format in which a bundle stores weights."""
MAX_DROP = 0.5
"""Points by which a metric of a release may fall."""
BATCH = AxisRange(1, 8, 64)
"""Items that an engine takes at a time."""


@dataclass(frozen=True)
class CheckData:
    """Clips to compare models on.

    Attributes:
        folder: Folder of a data set.
        data_format: A format of `hbi_training.data.formats`.
        split: Split of the data set.
        num: Number of clips, the first ones; None for all.
        workers: Decoding processes; None for one a core.
    """

    folder: Path
    data_format: str = "manifest"
    split: str = "test"
    num: int | None = None
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of building engines.

    Attributes:
        flavor: The TensorRT; "auto" takes the one that is installed, of both the one for this machine's GPU.
        precision: Precision of the products of matrices.
        batch: Clips, texts or pairs at a time.
        gpus: Compute capabilities such as "sm89", for TensorRT-RTX; none for the GPU that is here.
        plugins: Whether nodes of domain `hbi` are built with their kernels, not with their functions.
    """

    flavor: FlavorOption = "auto"
    precision: Precision = "fp32"
    batch: AxisRange = BATCH
    gpus: tuple[str, ...] = ()
    plugins: bool = False


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """Options of serving.

    Attributes:
        backend: "onnx" runs the graphs themselves, "tensorrt" the engines that `hbi-export trt` built of them.
        precision: Precision of those engines.
        max_batch: Largest number of clips or texts of one execution; an engine's own limit goes first.
        instances: Executions of a model at the same time, on each GPU, or on the processor where there is none.
        max_queue_delay_microseconds: Time for which a request waits for others to share an execution with.
    """

    backend: Backend = "onnx"
    precision: Precision = "fp32"
    max_batch: int = 64
    instances: int = 1
    max_queue_delay_microseconds: int = 500
