"""The Dockerfile names what exists, passes its linter, and ends as another user than root. No test builds it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.builders.service import running, write_library
from tests.paths import ROOT
from tests.test_documents import check_line

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TEXT = (ROOT / "Dockerfile").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction with its arguments; comments are left out and continued lines joined."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def arguments(name: str) -> list[str]:
    """Arguments of all instructions of a name."""
    found = [rest for each, rest in instructions(TEXT) if each == name]
    assert found, f"the Dockerfile has no {name}"
    return found


def copied() -> list[str]:
    """What is copied into the image."""
    return [source for line in arguments("COPY") for source in line.split()[:-1]]


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    assert linter.exists(), "install the extra dev"
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == kept
    assert all((ROOT / source).exists() for source in kept)


def test_all_that_the_wheel_is_made_of_is_copied() -> None:
    project = PROJECT["project"]
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(package).parts[0] for package in packages} <= set(copied())
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= set(copied())


def test_the_extra_and_the_python_are_those_of_the_project() -> None:
    (extras,) = re.findall(r'pip install [^&]*"\.\[([\w,]+)\]"', " ".join(arguments("RUN")))
    assert set(extras.split(",")) == {"cpu", "serve"} <= PROJECT["project"]["optional-dependencies"].keys()
    (version,) = re.findall(r"^python:3\.(\d+)-slim$", arguments("FROM")[0])
    assert f"Programming Language :: Python :: 3.{version}" in PROJECT["project"]["classifiers"]


def test_the_user_is_not_root_and_exists() -> None:
    user = arguments("USER")[-1]
    assert user not in ("0", "root")
    assert f"--uid {user} " in " ".join(arguments("RUN"))
    names = [name for name, _ in instructions(TEXT)]
    assert "RUN" not in names[names.index("USER") :]


def test_the_commands_are_those_of_the_project() -> None:
    program, *_ = command = json.loads(arguments("CMD")[-1])
    assert program in PROJECT["project"]["scripts"]
    check_line(" ".join(command))
    assert command[-1] == "0.0.0.0"
    for line in re.sub(r"\\\n#\s*", "", TEXT).splitlines():
        check_line(line.removeprefix("#"))


def test_the_index_is_a_volume_that_the_user_may_write() -> None:
    (volume,) = json.loads(arguments("VOLUME")[0])
    assert f"--owner={arguments('USER')[-1]} " in next(run for run in arguments("RUN") if f" {volume}" in run)
    assert f"XDG_CACHE_HOME={volume} " in arguments("ENV")[0]


def test_the_health_check_knows_a_service_that_answers(tmp_path: Path) -> None:
    library = write_library(tmp_path)
    command = json.loads(arguments("HEALTHCHECK")[0].partition(" CMD ")[2])
    with running(
        *("--videos", library / "videos", "--bundle", library / "bundle"), env={"XDG_CACHE_HOME": str(tmp_path)}
    ) as service:
        port = service.address.rstrip("/").rpartition(":")[2]
        check = [sys.executable, *(part.replace("8000", port) for part in command[1:])]
        assert check[2] != command[2]
        assert subprocess.run(check, check=False).returncode == 0
        service.stop()
        assert subprocess.run(check, capture_output=True, check=False).returncode != 0


def test_the_linter_finds_a_fault(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT.replace("FROM python:3.11-slim", "FROM python"))
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter
    done = subprocess.run([linter, tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "DL3006" in done.stdout


@pytest.mark.parametrize("text", ["# a\nRUN one \\\n two\n", "run one two\n"])
def test_instructions_are_read(text: str) -> None:
    assert [(name, rest.split()) for name, rest in instructions(text)] == [("RUN", ["one", "two"])]
