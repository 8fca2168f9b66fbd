"""The default model, and the file that keeps it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbi_infer.catalog.settings import Default, default_model, read_default, settings_file, write_default
from hbi_infer.errors import InputError
from tests.builders.command_line import WITHOUT_ROOTS_RIGHTS, run_python


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("HBI_BUNDLE", raising=False)
    return tmp_path


def test_the_environment_goes_before_the_settings_and_those_before_the_embedded_model(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings_file() == home / "config" / "hbi-infer" / "settings.toml"
    assert default_model() == Default("shapes")
    write_default("openai/clip", settings_file())
    assert default_model() == Default("openai/clip", str(settings_file()))
    monkeypatch.setenv("HBI_BUNDLE", "everyday")
    assert default_model() == Default("everyday", "HBI_BUNDLE")
    monkeypatch.setenv("HBI_BUNDLE", " ")
    assert default_model().name == "openai/clip"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text == text.strip() != ""))
def test_any_name_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    file = tmp_path_factory.mktemp("settings") / "settings.toml"
    write_default(name, file)
    assert read_default(file) == name
    assert tomllib.loads(file.read_text(encoding="utf-8")) == {"bundle": name}
    assert os.listdir(file.parent) == [file.name]  # noqa: PTH208


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"bundle = ", "are damaged ("),
        (b"bundle = '\xff'", "are damaged ("),
        (b"bundles = 'a'", "have the key 'bundles'; the only one is bundle"),
        (b"bundle = 3", "is 3; it must be the name of a model"),
        (b"# " + b"x" * 2**16, "have more than 65,536 bytes"),
        (b"bundle = " + b"[" * 10_000, "are damaged ("),
    ],
)
def test_damaged_settings(home: Path, content: bytes, reason: str) -> None:
    file = settings_file()
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        default_model()
    assert reason in str(caught.value)
    assert str(caught.value).endswith("mend it, or write it anew with: hbi-infer models use NAME")
    write_default("shapes", file)
    assert default_model() == Default("shapes", str(file))


def test_settings_that_cannot_be_written_stay_as_they_were(home: Path) -> None:
    write_default("one", settings_file())
    settings_file().parent.chmod(0o500)
    script = """
        import sys
        from hbi_infer.catalog.settings import write_default
        from hbi_infer.errors import InputError
        try:
            write_default("two", sys.argv[1])
        except InputError as error:
            print(error)
    """
    done = run_python(script, settings_file(), prefix=WITHOUT_ROOTS_RIGHTS)
    settings_file().parent.chmod(0o700)
    told = f"cannot write {settings_file()} (Permission denied): give the model's name in HBI_BUNDLE\n"
    assert done.stdout == told
    assert read_default(settings_file()) == "one"


def test_a_name_that_is_no_text_cannot_be_kept(home: Path) -> None:
    with pytest.raises(InputError, match="is not a name that a text file can hold: rename the bundle"):
        write_default("clip\udcff", settings_file())
    assert not settings_file().exists()


def test_settings_that_cannot_be_read(home: Path) -> None:
    settings_file().mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot read the settings .* mend its permissions"):
        default_model()
