"""Every module has a test file of its name in the same place below `tests`, or stands in the list of exceptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.test_architecture import FILES, name_of

SIDES = {"hbi_engines": "engines", "hbi_infer": "infer", "hbi_training": "training", "hbi_export": "export"}

EXCEPTIONS: dict[str, dict[str, str]] = {
    "hbi_engines": {
        "cuda/launch": "engines/tensorrt/test_plugins.py",
        "cuda/memory": "engines/tensorrt/test_runtime.py",
        "errors": "engines/test_engine.py",
        "tensorrt/trial": "engines/tensorrt/test_runtime.py",
    },
    "hbi_infer": {
        "cli/captions": "infer/cli/test_caption.py",
        "cli/options": "infer/cli/test_command.py",
        "convert/dual_encoder": "infer/convert/test_converter.py",
        "catalog/listener": "infer/catalog/test_catalog.py",
        "convert/versions": "infer/catalog/test_makers.py",
        "errors": "infer/cli/test_command.py",
        "model/encoder": "infer/model/test_token_model.py",
        "tokens/banzhaf": "training/banzhaf/test_exact.py",
        "tokens/game": "infer/tokens/test_fidelity.py",
        "tokens/groups": "infer/tasks/test_explain.py",
        "video/decoded_video": "infer/video/test_reader.py",
    },
    "hbi_training": {},
    "hbi_export": {
        "graphs/onnx_functions": "export/graphs/test_custom_ops.py",
        "options": "export/test_cli.py",
        "precision/report": "export/precision/test_gate.py",
        "report": "export/test_cli.py",
        "tensorrt/report": "export/tensorrt/test_build.py",
        "tensorrt/worker": "export/tensorrt/test_build.py",
    },
}
"""Package -> module without behaviour of its own -> the test file that runs it, relative to `tests`."""


def mirrored(package: str, path: Path) -> Path:
    """Where the test file of a module lies."""
    name = Path(name_of(package, path))
    return ROOT / "tests" / SIDES[package] / name.with_name(f"test_{name.name}.py")


MODULES = [(package, path) for package, path in FILES if path.name != "__init__.py"]


@pytest.mark.parametrize(("package", "path"), MODULES, ids=[f"{of}:{name_of(of, path)}" for of, path in MODULES])
def test_a_module_has_its_test_file(package: str, path: Path) -> None:
    elsewhere = EXCEPTIONS[package].get(name_of(package, path))
    there = mirrored(package, path)
    if elsewhere is None:
        assert there.is_file(), f"write {there.relative_to(ROOT)}"
    else:
        assert (ROOT / "tests" / elsewhere).is_file()
        assert not there.is_file(), "it has a test file: take it out of the exceptions"


@pytest.mark.parametrize("package", SIDES)
def test_exceptions_are_few_and_name_modules(package: str) -> None:
    names = {name_of(package, path) for of, path in MODULES if of == package}
    assert EXCEPTIONS[package].keys() <= names
    assert len(EXCEPTIONS[package]) <= len(names) // 4
