"""What the driver says here, and what is said where there is none."""

from __future__ import annotations

import pytest

from hbi_engines.cuda import driver


def test_gpus_are_seen_where_there_is_no_problem() -> None:
    gpus = driver.visible_gpus()
    assert bool(gpus) == (driver.driver_problem() == "")
    for gpu in gpus:
        assert gpu.compute_capability.removeprefix("sm").isdecimal()
        assert gpu.memory_bytes > 0


def test_without_a_driver_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnone.so.1")
    assert driver.driver_problem().startswith("there is no NVIDIA driver (libnone.so.1 cannot be loaded); install it")
    assert driver.visible_gpus() == []
    assert "cuda" not in driver.driver_versions()
