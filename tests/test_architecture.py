"""Imports go one way, and nothing that serves imports torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = {
    "hbi_engines": ROOT / "engines" / "hbi_engines",
    "hbi_infer": ROOT / "hbi_infer",
    "hbi_training": ROOT / "training" / "hbi_training",
    "hbi_export": ROOT / "export" / "hbi_export",
}
ORDER = list(PACKAGES)
FILES = [(package, path) for package, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))]


COMMANDS = PACKAGES["hbi_infer"] / "cli"
"""The body of a command may reach for what serving does without."""


def imported(path: Path, *, bodies: bool = True) -> set[str]:
    """Top-level names of all modules that a file imports, wherever it does, or outside the bodies of functions."""
    names = set()
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = set() if bodies else {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if node in inside:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_there_are_files_to_look_at() -> None:
    assert {package for package, _ in FILES} == set(ORDER)


@pytest.mark.parametrize(
    ("package", "path"), FILES, ids=lambda value: str(value) if isinstance(value, str) else value.stem
)
def test_imports_go_one_way(package: str, path: Path) -> None:
    to_the_right = set(ORDER[ORDER.index(package) + 1 :])
    assert not imported(path, bodies=not path.is_relative_to(COMMANDS)) & to_the_right
    if package in ("hbi_engines", "hbi_infer"):
        assert not imported(path) & {"torch", "transformers", "accelerate"}
    assert "pickle" not in imported(path)
