"""A run's folder, which belongs to one training at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import torch
import torch.distributed
from accelerate import PartialState

from hbi_engines.operating_system import is_ours
from hbi_infer.errors import TrainingError

LOCK = "lock"
"""Name of the file that a training holds; the system frees it when the process ends, however that happens."""


@contextmanager
def held(folder: Path, processes: PartialState, *, restart: bool = False) -> Iterator[None]:
    """Makes a run's folder, and keeps other trainings out of it during the block.

    Args:
        folder: Folder of the run.
        processes: Group of the processes that train together; the main one holds the folder for all.
        restart: True deletes what the folder holds.

    Raises:
        TrainingError: Another training holds the folder, or it cannot be made. Of several processes the main one says
            so, and the others end.
    """
    problem: TrainingError | None = None
    with ExitStack() as stack:
        if processes.is_main_process:
            try:
                stack.enter_context(_lock(folder, restart=restart))
            except TrainingError as error:
                problem = error
        is_refused = torch.tensor(float(problem is not None), device=processes.device)
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(is_refused, src=0)
        if problem is not None:
            raise problem
        if is_refused:
            raise SystemExit(1)
        yield


def _lock(folder: Path, *, restart: bool) -> IO[bytes]:
    """Returns the file whose closing frees the folder."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / LOCK).open("ab"))
            is_free = is_ours(file)
            for path in folder.iterdir() if is_free and restart else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
        except OSError as error:
            raise TrainingError(f"cannot use {folder} for a run: {error.strerror}; give another --out") from error
        if not is_free:
            raise TrainingError(
                f"another process is training in {folder}: wait until it ends, stop it, or give another --out"
            )
        stack.pop_all()
    return file
