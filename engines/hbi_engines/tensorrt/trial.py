"""Tries TensorRT on the GPU that is here: builds and runs the smallest network."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from hbi_engines.cuda.driver import visible_gpus
from hbi_engines.engine import AxisRange, TensorSpec
from hbi_engines.engine_files import EngineRecord, Flavor
from hbi_engines.errors import EngineError
from hbi_engines.tensorrt.flavor import collecting_logger, compute_capabilities, import_flavor
from hbi_engines.tensorrt.runtime import load

NUMBERS = TensorSpec("numbers", "float32", ("batch",))
DOUBLED = TensorSpec("doubled", "float32", ("batch",))
SIZES = AxisRange(1, 2, 8)


def try_tensorrt(flavor: Flavor) -> None:
    """Doubles some numbers, three times so that a CUDA graph takes part.

    Raises:
        EngineError: TensorRT failed, or its result is wrong.
    """
    library = import_flavor(flavor)
    gpu = visible_gpus()[0].compute_capability
    content = build_doubling(library, gpu)
    record = EngineRecord(
        graph="doubling",
        graph_sha256="",
        engine_sha256=hashlib.sha256(content).hexdigest(),
        flavor=flavor.device,
        version=library.__version__,
        compute_capabilities=(gpu,),
        gpu="",
        precision="fp32",
        ranges={"batch": SIZES},
        inputs=(NUMBERS,),
        outputs=(DOUBLED,),
        plugins=(),
        layers=1,
        size_bytes=len(content),
        build_seconds=0.0,
    )
    engine = load(library, content, record, "an engine built just now", flavor.device, "on trial")
    numbers = np.array([1, 2, 3], np.float32)
    for _ in range(3):
        doubled = engine.run({"numbers": numbers})["doubled"]
        if not np.array_equal(doubled, 2 * numbers):
            raise EngineError(f"{flavor.device} says that twice {numbers.tolist()} is {doubled.tolist()}")
    engine.close()


def build_doubling(library: Any, gpu: str) -> bytes:
    """Builds an engine that adds its input to itself, for a compute capability; TensorRT builds for the GPU here.

    Raises:
        EngineError: TensorRT built nothing.
    """
    logger = collecting_logger(library)
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    numbers = network.add_input(NUMBERS.name, library.float32, (-1,))
    doubled = network.add_elementwise(numbers, numbers, library.ElementWiseOperation.SUM).get_output(0)
    doubled.name = DOUBLED.name
    network.mark_output(doubled)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape(NUMBERS.name, (SIZES.least,), (SIZES.usual,), (SIZES.most,))
    config.add_optimization_profile(profile)
    if gpu in compute_capabilities(library):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(library.ComputeCapability, gpu.upper()), 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f"TensorRT built nothing: {'; '.join(logger.errors) or 'it gave no reason'}")
    return bytes(memoryview(engine))
