"""Parts of a computation over many clips, done side by side by threads of our own.

Matrix products take one thread each meanwhile. The threads that a BLAS library has for one product wait for each other
at its end, which takes long on a busy machine; those of OpenBLAS 0.3.31, which NumPy 2.4 brings, were seen to wait for
ever. Threads of our own meet once a pass, and what follows a product finds it in the cache of its core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.operating_system import BLAS_THREADS, usable_cpus

_lock = threading.Lock()  # the limit is one for the whole process: only one thread at a time can set and lift it


def in_parts(work: Callable[[slice], object], count: int, *, at_least: int = 1) -> None:
    """Does work on parts of `range(count)` side by side, on all processors that this process may use.

    Args:
        work: Called with the slice of each part, from several threads; it must let other threads run meanwhile, as
            NumPy does where it computes.
        count: Number of things to work on.
        at_least: Least number of them that is worth a thread.
    """
    num_parts = max(1, min(len(usable_cpus()), count // at_least))
    ends = [count * number // num_parts for number in range(num_parts + 1)]
    parts = [slice(start, stop) for start, stop in pairwise(ends)]
    with _one_thread_a_product():
        if num_parts == 1:
            work(parts[0])
            return
        with ThreadPoolExecutor(num_parts - 1, thread_name_prefix="hbi-parts") as pool:
            others = [pool.submit(work, part) for part in parts[1:]]
            work(parts[0])
            for other in others:
                other.result()


def multiply_in_parts(
    left: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    *,
    at_least: int = 1,
) -> None:
    """Writes the product of rows (N, D) with a matrix (D, T) or a vector (D,) into `out`, (N, T) or (N,)."""
    in_parts(lambda part: np.matmul(left[part], right, out=out[part]), len(left), at_least=at_least)


@contextmanager
def _one_thread_a_product() -> Iterator[None]:
    """Lets products take one thread each; afterwards as many as before."""
    if os.environ.get(BLAS_THREADS) == "1":
        yield
        return
    with _lock, _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> Any:
    """Returns the BLAS libraries that are loaded, NumPy's among them."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
