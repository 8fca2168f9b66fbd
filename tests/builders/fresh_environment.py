"""A virtual environment as a user makes it: the project with its extra for the processor, and no PyTorch."""

from __future__ import annotations

import os
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

SECONDS = 600


@dataclass(frozen=True)
class FreshEnvironment:
    """An environment beside that of the tests.

    Attributes:
        folder: The environment's folder.
        variables: Variables of the processes that are run in it, beside those of the tests.
    """

    folder: Path
    variables: dict[str, str]

    def run(self, program: str, *arguments: object, expected: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, which must end with an exit code."""
        process = self.start(program, *arguments)
        try:
            output, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        assert process.returncode == expected, errors
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def start(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start one of its programs, which the caller ends."""
        hidden = ("PYTHONPATH", "VIRTUAL_ENV", "HBI_BUNDLE")
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        return subprocess.Popen(
            [self.folder / "bin" / program, *map(str, arguments)],
            cwd=ROOT,
            env={**inherited, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def make_environment(folder: Path, variables: dict[str, str], *extras: str) -> FreshEnvironment:
    """Make an environment and install the project in it with extras such as "cpu", from the configured registry."""
    venv.create(folder, with_pip=True)
    environment = FreshEnvironment(folder, variables)
    quiet = ("--quiet", "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt")
    environment.run("python", "-m", "pip", "install", *quiet, f"{ROOT}[{','.join(extras)}]")
    return environment
