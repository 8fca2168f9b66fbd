"""The compose file and the systemd unit name what exists and keep to what they promise; systemd reads its unit."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT
from tests.test_dockerfile import arguments
from tests.test_documents import check_line

FOLDER = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
UNIT = (FOLDER / "hbi-infer.service").read_text()
PROGRAM = "/opt/hbi-infer/bin/hbi-infer"


def settings() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT)
    return parser


def test_the_container_can_write_nothing_but_its_index() -> None:
    (service,) = COMPOSE["services"].values()
    assert service["read_only"] is True
    assert service["user"] == arguments("USER")[-1]
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    videos, index = service["volumes"]
    assert (videos["target"], videos["type"], videos["read_only"]) == ("/videos", "bind", True)
    assert (index["target"], index["type"]) == ("/index", "volume")
    assert index["source"] in COMPOSE["volumes"]
    assert '"/index"' in arguments("VOLUME")[0]


def test_the_container_is_reached_from_this_machine_with_the_token() -> None:
    (service,) = COMPOSE["services"].values()
    assert service["ports"] == [f"127.0.0.1:8000:{arguments('EXPOSE')[0]}"]
    check_line(" ".join(service["command"]))
    assert service["command"][-2:] == ["--token-file", "/run/secrets/token"]
    assert service["secrets"] == list(COMPOSE["secrets"]) == ["token"]
    assert (FOLDER / service["build"] / "Dockerfile").exists()


def test_the_unit_starts_the_service() -> None:
    service = settings()["Service"]
    line = service["ExecStart"]
    assert line.startswith(f"{PROGRAM} serve ")
    check_line(line.replace(PROGRAM, "hbi-infer"))
    assert f"--videos {service['BindReadOnlyPaths']} " in line
    assert "--token-file ${CREDENTIALS_DIRECTORY}/token" in line
    assert service["LoadCredential"].startswith("token:")
    assert service["StateDirectory"] in service["Environment"]
    assert {"seccomp", "landlock_restrict_self"} <= set(service["SystemCallFilter"].split())
    for promise in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateDevices", "RestrictNamespaces"):
        assert service[promise] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "hbi-infer.service"
    path.write_text(UNIT.replace(PROGRAM, "/bin/true"))  # that a program is missing is an error, too
    verified = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    path.write_text(UNIT.replace(PROGRAM, "/bin/true").replace("ProtectHome=yes", "ProtectHome=perhaps"))
    verified = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert "perhaps" in verified.stderr
