"""Public functions take a path as a string too; what commands and the API call with a path of theirs need not."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hbi_infer.options import FrameSampling
from hbi_infer.video import decode, decode_many, find_videos, probe, read_frames
from hbi_training.data.formats import READERS
from tests.builders.video_files import write_video
from tests.test_architecture import FILES, name_of

INNER = (
    "hbi_infer.bench",
    "hbi_infer.cli",
    "hbi_infer.files",
    "hbi_infer.index.",
    "hbi_infer.model.bundle_files",
    "hbi_infer.render.caption_file",
    "hbi_infer.render.tables",
    "hbi_infer.serve.",
    "hbi_infer.video.content",
    "hbi_infer.video.packets",
    "hbi_training.cli",
    "hbi_training.data.annotation_files",
    "hbi_training.run.run_folder",
    "hbi_export.cli",
    "hbi_export.precision.report",
    "hbi_export.report",
)
"""Modules and rooms that no program imports."""
OUTER = ("hbi_infer.index.clip_tokens", "hbi_infer.index.folder_index")
"""Those of an inner room that a program may call."""
MODULES = [
    name
    for package, path in FILES
    if package != "hbi_engines"
    and (not (name := f"{package}.{name_of(package, path).replace('/', '.')}").startswith(INNER) or name in OUTER)
    and path.name != "__init__.py"
]


def public_functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions of a module, and the constructors and methods of its classes, by name."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.isclass(value):
            for method, function in vars(value).items():
                function = getattr(function, "__func__", function)
                is_own_init = method == "__init__" and not dataclasses.is_dataclass(value)
                if inspect.isfunction(function) and (is_own_init or not method.startswith("_")):
                    yield f"{name}.{method}", function
        elif inspect.isfunction(value) and value not in READERS.values():
            yield name, value


@pytest.mark.parametrize("name", MODULES)
def test_a_path_may_be_a_string(name: str) -> None:
    for function, called in public_functions(import_module(name)):
        for parameter in inspect.signature(called).parameters.values():
            annotation = str(parameter.annotation)
            if re.search(r"\bPath\b", annotation) and not annotation.startswith("Callable"):
                assert "Path | str" in annotation, f"{function}({parameter})"


def test_the_modules_are_those_of_the_api() -> None:
    assert {"hbi_infer.api", "hbi_infer.video.reader", "hbi_training.run.trainer", "hbi_export.bundle"} <= set(MODULES)


def test_videos_are_read_by_a_string(tmp_path: Path) -> None:
    path, sampling = tmp_path / "a.mp4", FrameSampling(image_size=32)
    write_video(path, num_frames=30)
    expected = decode(path, sampling)
    for video in (decode(str(path), sampling), *decode_many([str(path)], sampling, workers=1)):
        assert (video.path, video.status, video.info) == (path, "ok", expected.info)
        np.testing.assert_array_equal(video.clips[0].frames, expected.clips[0].frames)
    assert probe(str(path)) == expected.info
    np.testing.assert_array_equal(read_frames(str(path), np.zeros(1), image_size=32)[0], expected.clips[0].frames[0])
    assert find_videos(str(tmp_path)) == [path]
