"""Imports go one way, and nothing that serves imports torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "hbi_engines": ROOT / "engines" / "hbi_engines",
    "hbi_infer": ROOT / "hbi_infer",
    "hbi_training": ROOT / "training" / "hbi_training",
    "hbi_export": ROOT / "export" / "hbi_export",
}
ORDER = list(PACKAGES)
FILES = [(package, path) for package, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
    assert not imported(path) & to_the_right
    if package in ("hbi_engines", "hbi_infer"):
        assert not imported(path) & {"torch", "transformers", "accelerate"}
    assert "pickle" not in imported(path)
