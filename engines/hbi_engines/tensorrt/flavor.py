"""Imports a flavour of TensorRT, and asks it about GPUs and errors."""

from __future__ import annotations

import importlib
from typing import Any

from hbi_engines.engine_files import Flavor
from hbi_engines.errors import DeviceError


def import_flavor(flavor: Flavor) -> Any:
    """Imports the module of a flavour.

    Raises:
        DeviceError: The module is not installed, or its libraries cannot be loaded.
    """
    try:
        library = importlib.import_module(flavor.module)
    except (ImportError, OSError) as error:
        raise DeviceError(
            f'{flavor.module} cannot be imported ({error}); pip install "hbi-infer[{flavor.option}]"'
        ) from error
    if not hasattr(library, "Builder"):
        raise DeviceError(
            f"{flavor.module} is installed without contents: pip uninstall it and its parts, which pip list shows, "
            f'then pip install "hbi-infer[{flavor.option}]"'
        )
    return library


def compute_capabilities(library: Any) -> list[str]:
    """Lists GPUs that TensorRT-RTX can build for without having one, such as "sm89"; none for TensorRT."""
    members = getattr(getattr(library, "ComputeCapability", None), "__members__", {})
    return [name.lower() for name in members if name.startswith("SM")]


def collecting_logger(library: Any) -> Any:
    """Makes a logger of TensorRT that keeps the texts of errors in `errors` and prints nothing."""

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Logger()
