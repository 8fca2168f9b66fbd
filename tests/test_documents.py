"""The README and the pages in docs name commands, options, files and links that exist, and their Python runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import hbi_export.cli
import hbi_infer.cli
import hbi_training.cli
from tests.paths import ROOT
from tests.test_architecture import PACKAGES, ROOMS

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
PROGRAMS: dict[str, Any] = {
    "hbi-infer": get_command(hbi_infer.cli.app),
    "hbi-train": get_command(hbi_training.cli.app),
    "hbi-export": get_command(hbi_export.cli.app),
}
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for all wrong usage; it has no public name."""

PIPES = ("&&", "|", ";", ">")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(!?)\[[^\]]+\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
PATH = re.compile(r"^[\w.-]+(?:/[\w.-]+)+/?$")


@dataclass(frozen=True)
class Use:
    """A command as a page shows it: the program, its commands, and the words behind them."""

    program: str
    commands: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def leaf(self) -> Any:
        """Typer's command."""
        found = PROGRAMS[self.program]
        for name in self.commands:
            found = found.commands[name]
        return found


def uses(line: str) -> Iterator[Use]:
    """The command of ours in a line, if there is one; what a program before it takes is left out."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    places = [place for place, word in enumerate(words) if word in PROGRAMS]
    if not places:
        return
    program, *rest = words[places[-1] :]
    rest = rest[: next((place for place, word in enumerate(rest) if word in PIPES), len(rest))]
    commands: list[str] = []
    group = PROGRAMS[program]
    while hasattr(group, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in group.commands, f"{program} has no command {' '.join((*commands, rest[0]))}: {line}"
        group = group.commands[rest[0]]
        commands.append(rest.pop(0))
    if commands:
        yield Use(program, tuple(commands), tuple(rest))


def options(command: Any) -> set[str]:
    """All options of a command, and --help."""
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}


def shell_lines(text: str) -> list[str]:
    """Lines of the code blocks that are not Python."""
    rest = FENCE.sub("", text)
    return [line.strip() for block in INDENTED.findall(rest) for line in block.splitlines()]


def check_line(line: str) -> None:
    """Parses the command of a code block as the program would; nothing is run."""
    for use in uses(line):
        if "--help" not in use.words:
            use.leaf.make_context(use.program, list(use.words))


def all_leaves(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Names of all commands of a program, its own first."""
    if hasattr(command, "commands"):
        if names and command.invoke_without_command:
            yield names
        for name, child in command.commands.items():
            yield from all_leaves(child, (*names, name))
    else:
        yield names


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """Anchors of a page."""
    return {slug(heading.strip()) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def check_link(page: Path, target: str, *, is_picture: bool) -> None:
    """Finds the file of a relative link, its anchor, and whether a picture is one."""
    if re.match(r"https?://", target):
        return
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    assert path.exists(), f"{page.name} links to {target}, which is not there"
    assert path.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(path.read_text()), f"{page.name} links to {target}: no heading is called so"
    if is_picture:
        assert path.read_bytes().startswith(b"\x89PNG")


page = pytest.mark.parametrize("page", PAGES, ids=[path.name for path in PAGES])


@page
def test_commands_of_code_blocks_would_be_accepted(page: Path) -> None:
    for line in shell_lines(page.read_text()):
        check_line(line)


@page
def test_options_in_a_sentence_belong_to_a_command_of_its_section(page: Path) -> None:
    for section in re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE):
        spans = INLINE.findall(FENCE.sub("", section))
        named = [use for line in (*shell_lines(section), *spans) for use in uses(line)]
        leaves = [use.leaf for use in named] or [
            Use(program, names, ()).leaf for program, root in PROGRAMS.items() for names in all_leaves(root, ())
        ]
        known = set().union(*(options(leaf) for leaf in leaves))
        for span in spans:
            use = next(uses(span), None)
            own, text = (options(use.leaf), shlex.join(use.words)) if use else (known, span)
            if use or span.startswith("-"):
                assert set(OPTION.findall(text)) <= own, f"{page.name}, {section.splitlines()[0]}: `{span}`"


@page
def test_links_lead_somewhere(page: Path) -> None:
    for picture, target in LINK.findall(FENCE.sub("", page.read_text())):
        check_link(page, target, is_picture=bool(picture))


@page
def test_files_that_are_named_exist(page: Path) -> None:
    roots = {package: folder.parent for package, folder in PACKAGES.items()}
    top = {path.name for path in ROOT.iterdir()} - {"runs", "data"}
    for span in INLINE.findall(FENCE.sub("", page.read_text())):
        first = span.partition("/")[0]
        if PATH.match(span) and (first in top or first in roots):
            assert (roots.get(first, ROOT) / span).exists(), f"{page.name} names {span}, which is not there"


@pytest.mark.parametrize(
    "line",
    [
        "hbi-infer retrieve --videos samples/ --quer circle",
        "hbi-infer retrieve --videos samples/ --newer tomorrow",
        "hbi-infer explain --video a.mp4",
        "hbi-infer find samples/",
        "hbi-train data squares --out data",
        "hbi-export quantize a -o b --precision int4",
        "torchrun --no-python hbi-train retrieval --recipes a.yaml",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises((AssertionError, UsageError)):
        check_line(line)


def test_a_wrong_link_is_found() -> None:
    for target in ("docs/command.md", "docs/commands.md#retrive", "#installl"):
        with pytest.raises(AssertionError, match=r"not there|no heading"):
            check_link(ROOT / "README.md", target, is_picture=False)


def test_every_command_has_its_row() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    shown = {(use.program, *use.commands) for line in shell_lines(text) for use in uses(line)}
    assert shown == {(program, *names) for program, root in PROGRAMS.items() for names in all_leaves(root, ())}


def test_the_page_of_rooms_is_what_the_architecture_test_enforces() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "where_code_goes.md").read_text())
    for package, lines in ROOMS.items():
        order = " <- ".join(line.replace(" ", ", ") for line in lines)
        assert f"**{package}** {order} " in text, f"write: {order}"


def test_the_readme_is_short_and_its_pages_are_all_linked() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 140
    assert {path.name for path in PAGES} - {"README.md"} <= {Path(target).name for _, target in LINK.findall(text)}


def test_the_results_are_what_the_json_says() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_results.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_page_of_results_is_made_of_every_json() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        document = json.loads(path.read_text())
        if "machine" in document:
            assert f"load {document['machine']['load_average_1_minute']} when it ended" in text


@pytest.mark.parametrize("name", ["README.md", "docs/api.md"])
def test_the_python_of_a_page_runs(name: str, tmp_path: Path) -> None:
    blocks = [code for language, code in FENCE.findall((ROOT / name).read_text()) if language == "python"]
    assert blocks
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "two-big-red-rings-move-left.avi" in done.stdout
    assert "two big red rings move left" in done.stdout
