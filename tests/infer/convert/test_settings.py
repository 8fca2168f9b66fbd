"""Settings of a model are of the expected kind and size, or an error names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hbi_infer.convert.settings import LIMIT_BYTES, Settings, read_settings
from hbi_infer.errors import BundleError


def settings(**values: Any) -> Settings:
    return Settings(values, "config.json")


def test_sizes_and_their_defaults() -> None:
    given = settings(width=3, pair=[16, 16], gone=None)
    assert [given.whole(key, 7) for key in ("width", "pair", "gone", "none")] == [3, 16, 7, 7]
    assert "width" in given
    assert "gone" not in given
    assert given.section("gone").where == "config.json, gone"
    assert settings(inner={"a": 2}).section("inner").whole("a") == 2


@pytest.mark.parametrize("value", [0, -1, 2**21, 1.5, True, "3", [1, 2], [1], {}, None])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(BundleError, match=r"config.json: width is .*; only a whole number from 1 to 1,048,576 is"):
        settings(width=value).whole("width")


@pytest.mark.parametrize("value", ["1", True, float("nan"), 2, -1])
def test_what_is_no_number_within_bounds(value: Any) -> None:
    with pytest.raises(BundleError, match=r"eps is .*; only a number from 0 to 1 is supported"):
        settings(eps=value).number("eps", 0.1, least=0, most=1)
    assert settings().number("eps", 0.1, least=0, most=1) == 0.1


@pytest.mark.parametrize("value", ["mish", ["gelu"], {"gelu": 1}, 3])
def test_what_is_no_choice(value: Any) -> None:
    with pytest.raises(BundleError, match=r"act is .*; only 'gelu' or 'relu' is supported"):
        settings(act=value).choice("act", "gelu", {"gelu": 1, "relu": 2})
    assert settings().choice("act", "gelu", {"gelu": 1, "relu": 2}) == 1
    assert settings(act="relu").choice("act", "gelu", ("gelu", "relu")) == "relu"


def test_unknown_keys_and_other_values_are_refused() -> None:
    known = {"width": None, "bias": True}
    settings(width=3, bias=True).refuse(known)
    settings(bias=None).refuse(known)
    with pytest.raises(BundleError, match="twist is 1, a setting that is not known here"):
        settings(twist=1).refuse(known)
    with pytest.raises(BundleError, match="bias is False; only True is supported"):
        settings(bias=False).refuse(known)


@pytest.mark.parametrize("content", [b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000, b" " * (LIMIT_BYTES + 1)])
def test_files_that_are_no_settings(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"cannot read .*config.json .*: fetch the model again"):
        read_settings(tmp_path, "config.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert read_settings(tmp_path, "config.json") is None
