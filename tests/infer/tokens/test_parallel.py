"""Work in parts: every thing once, side by side, with products of one thread each, and errors that arrive."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.tokens import parallel
from hbi_infer.tokens.parallel import in_parts
from tests.builders.command_line import run_python


@pytest.fixture(autouse=True)
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "usable_cpus", lambda: [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("count", "at_least", "parts"), [(0, 1, 1), (1, 1, 1), (3, 1, 3), (10, 1, 4), (10, 4, 2), (7, 8, 1), (8, 8, 1)]
)
def test_each_thing_is_worked_on_once(count: int, at_least: int, parts: int) -> None:
    done = np.zeros(count, np.int64)
    slices = []

    def work(part: slice) -> None:
        done[part] += 1
        slices.append(part)

    in_parts(work, count, at_least=at_least)
    assert (done == 1).all()
    assert len(slices) == parts


def test_parts_are_done_side_by_side() -> None:
    together = threading.Barrier(4, timeout=20)
    in_parts(lambda _: together.wait() and None, 4)


@pytest.mark.parametrize("place", [0, 3])
def test_an_error_of_a_part_arrives(place: int) -> None:
    def work(part: slice) -> None:
        if part.start == place:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_parts(work, 4)


SCRIPT = """
    import numpy as np
    from concurrent.futures import ThreadPoolExecutor
    from threadpoolctl import threadpool_info
    from hbi_infer.tokens.parallel import in_parts

    def threads():
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    before, seen = threads(), []
    in_parts(lambda _: seen.append(threads()), 1)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(in_parts, lambda _: seen.append(threads()), 1) for _ in range(20)]:
            done.result()
    assert seen == [[1]] * 21, seen
    assert threads() == before, threads()
"""


def test_products_take_one_thread_meanwhile_and_as_many_as_before_afterwards() -> None:
    done = run_python(SCRIPT, env={**os.environ, "OPENBLAS_NUM_THREADS": "2"})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["hbi_infer", "hbi_training"])
@pytest.mark.parametrize(("given", "taken"), [(None, "1"), ("2", "2")])
def test_commands_let_a_product_take_one_thread_unless_the_user_says_otherwise(
    command: str, given: str | None, taken: str, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    env |= {"OPENBLAS_NUM_THREADS": given} if given else {}
    script = f"""
        import os, sys
        from {command}.cli import main
        assert "numpy" not in sys.modules
        sys.argv[1:] = ["--help"]
        try:
            main()
        finally:
            print("threads", os.environ["OPENBLAS_NUM_THREADS"])
    """
    assert f"threads {taken}" in run_python(script, env=env, cwd=tmp_path).stdout


def test_many_passes_at_a_time() -> None:
    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(total, range(200)))
    assert totals == [number * 10 for number in range(200)]


def total(number: int) -> int:
    """Adds up a number for each of ten things."""
    added = np.zeros(10, np.int64)

    def work(part: slice) -> None:
        added[part] += number

    in_parts(work, 10)
    return int(added.sum())
