"""Imports go one way, between packages and between the rooms of a package; no two files import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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

ROOMS = {
    "hbi_engines": (
        "errors operating_system",
        "graph_content time_limit",
        "engine",
        "cuda/driver",
        "engine_files",
        "engine_options kernels half_products",
        "cuda",
        "tensorrt",
        "onnx_runtime openvino_runtime",
        "registry",
    ),
    "hbi_infer": (
        "errors",
        "options files worker_process",
        "tokens video",
        "model",
        "convert",
        "catalog",
        "index",
        "tasks",
        "api render",
        "bench doctor",
        "serve",
        "cli",
    ),
    "hbi_training": ("data model", "weights", "banzhaf evaluation", "objective", "run", "cli"),
    "hbi_export": (
        "options graphs strange_clips",
        "report",
        "pytorch precision tensorrt training_world",
        "bundle clip upstream triton",
        "random_bundle",
        "cli",
    ),
}
"""Rooms (folders or files) of each package: one imports those of earlier lines, and nothing else outside itself."""


def modules(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of all modules of a package that a file imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == package)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == package:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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


def name_of(package: str, path: Path) -> str:
    """Name of a file inside its package, such as "tokens/levels"."""
    return path.relative_to(PACKAGES[package]).with_suffix("").as_posix()


def files_imported(package: str, path: Path) -> set[str]:
    """Files of its own package that a file imports; a package's `__init__` only where a name of its own is taken."""
    known = {name_of(package, file) for of, file in FILES if of == package}
    found = set()
    for module in modules(ast.parse(path.read_text()), package):
        name = "/".join(module.split(".")[1:])
        found |= {name} & known
    return found - {name_of(package, path)}


def room(package: str, name: str) -> tuple[int, str]:
    """Line and name of the room that a file lies in; the most specific name counts."""
    lines = [(number, each) for number, line in enumerate(ROOMS[package]) for each in line.split()]
    inside = [(number, each) for number, each in lines if name == each or name.startswith(f"{each}/")]
    assert inside, f"{name} of {package} is in no room: name its folder in ROOMS"
    return max(inside, key=lambda place: len(place[1]))


def test_there_are_files_to_look_at() -> None:
    assert {package for package, _ in FILES} == set(ORDER)


@pytest.mark.parametrize(("package", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_imports_go_one_way(package: str, path: Path) -> None:
    to_the_right = set(ORDER[ORDER.index(package) + 1 :])
    assert not imported(path, bodies=not path.is_relative_to(COMMANDS)) & to_the_right
    if package in ("hbi_engines", "hbi_infer"):
        assert not imported(path) & {"torch", "transformers", "accelerate"}
    assert "pickle" not in imported(path)


@pytest.mark.parametrize(
    ("package", "path"),
    [(package, path) for package, path in FILES if name_of(package, path) != "__init__"],
    ids=lambda value: str(value) if isinstance(value, str) else value.stem,
)
def test_rooms_are_imported_one_way(package: str, path: Path) -> None:
    line, own = room(package, name_of(package, path))
    for name in files_imported(package, path) - {"__init__"}:
        other_line, other = room(package, name)
        assert other == own or other_line < line, f"{own} may not import {name}"


@pytest.mark.parametrize("package", ORDER)
def test_no_files_import_each_other(package: str) -> None:
    arrows = {name_of(package, path): files_imported(package, path) for of, path in FILES if of == package}
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise AssertionError(f"files import each other: {' -> '.join((*way[way.index(name) :], name))}")
        if name not in done:
            for other in sorted(arrows[name]):
                follow(other, (*way, name))
            done.add(name)

    for name in arrows:
        follow(name, ())


def test_a_circle_would_be_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def late() -> None:\n    from hbi_infer.two import name\n")
    (tmp_path / "two.py").write_text("import hbi_infer.one\n")
    monkeypatch.setitem(PACKAGES, "hbi_infer", tmp_path)
    monkeypatch.setattr(f"{__name__}.FILES", [("hbi_infer", path) for path in sorted(tmp_path.glob("*.py"))])
    with pytest.raises(AssertionError, match="one -> two -> one"):
        test_no_files_import_each_other("hbi_infer")
