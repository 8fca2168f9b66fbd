"""Public docstrings state the shapes of their arrays, and sentences begin with their subject."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import FILES, ROOT

ARRAYS = re.compile(
    r"\b(?:NDArray|Tensor|Floats|FloatArray|Float32Array|Ids|ClipIds|PackedTokens|Levels|LevelTokens|Tokens"
    r"|TokensByLevel|TokenBatch|Arrays|Clips?)\b"
)
"""Annotations whose values are arrays, or are made of arrays."""

SHAPE = re.compile(
    r"\(\s*\(?[A-Z][A-Za-z0-9_]*(?:,|\s*\*|\))|batch of (?:one|[A-Z])\b"
    r"|\b[A-Z][a-z]? (?:texts|clips|pairs|frames|questions|videos|captions|tokens|sets|vectors)\b"
)
"""A shape such as (B, F, D), or its number of items: "a batch of one", "B texts"."""

NO_SUBJECT = re.compile(r"^(?:Of|As|And|With|What|That|Which|Whose|By|From which)\b")
"""Words that begin a sentence whose subject has to be guessed."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions, classes and methods, by their dotted names."""

    def walk(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
        for child in node.body:
            if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    yield from walk(child, f"{prefix}{child.name}.")

    yield from walk(tree, "")


def array_annotations(function: Function) -> list[str]:
    """What of a signature is an array."""
    arguments = function.args
    annotated = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    written = [ast.unparse(given.annotation) for given in annotated if given.annotation]
    if function.returns:
        written.append(ast.unparse(function.returns))
    return [text for text in written if ARRAYS.search(text)]


def described(node: ast.AST) -> Iterator[str]:
    """First lines of docstrings, of what is said of each argument or attribute, and of each constant."""
    for part in ast.walk(node):
        if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str):
            yield part.value.value.strip().partition("\n")[0]
        if isinstance(part, ast.Module | ast.ClassDef | Function) and (text := ast.get_docstring(part)):
            yield text.partition("\n")[0]
            for match in re.finditer(r"^ {4}(?:[a-z_0-9]+(?:, [a-z_0-9]+)*): (.+)$", text, re.MULTILINE):
                yield match.group(1)


@pytest.mark.parametrize(("package", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_arrays_have_shapes(package: str, path: Path) -> None:
    silent = [
        f"{name} at line {node.lineno}"
        for name, node in definitions(ast.parse(path.read_text()))
        if isinstance(node, Function)
        and array_annotations(node)
        and not any(ast.unparse(decorator).endswith((".setter", "overload")) for decorator in node.decorator_list)
        and not SHAPE.search(ast.get_docstring(node) or "")
    ]
    assert not silent, f"no shape is stated in {path}: {silent}"


@pytest.mark.parametrize(("package", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_sentences_begin_with_their_subject(package: str, path: Path) -> None:
    guessed = [text for text in described(ast.parse(path.read_text())) if NO_SUBJECT.match(text)]
    assert not guessed, f"in {path}"
