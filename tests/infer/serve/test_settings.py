"""Settings that fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hbi_infer.errors import InputError
from hbi_infer.serve.settings import ServeOptions, is_loopback, new_token


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"videos": ()}, "nothing to serve"),
        ({"bundles": ()}, "nothing to serve"),
        ({"videos": (Path("/nowhere"),)}, "there is no folder"),
        ({"port": 70_000}, "port is 70000"),
        ({"token": "short"}, "at least 16"),
        ({"key": Path("k")}, "go together"),
    ],
)
def test_wrong_settings(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        ServeOptions(**{"videos": (tmp_path,)} | given)


def test_a_token_is_not_shown(tmp_path: Path) -> None:
    token = new_token()
    assert len(token) > 40
    assert token != new_token()
    assert token not in repr(ServeOptions(videos=(tmp_path,), token=token))


def test_addresses_of_this_machine_alone() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.com")))
