"""The page's files need nothing from another host, run no text as code, and find what they import."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGE = ROOT / "hbi_infer" / "serve" / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))
MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc", "DOMParser")
NAMESPACE = "http://www.w3.org/2000/svg"


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_there_is_a_page() -> None:
    assert {"index.html", "style.css", "app.js", "icon.svg"} <= {path.name for path in PAGE.iterdir()}


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=names(sorted(PAGE.iterdir())))
def test_a_file_names_no_other_host(path: Path) -> None:
    text = path.read_text("utf-8").replace(NAMESPACE, "")
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text)
    assert "@import" not in text


@pytest.mark.parametrize("path", SCRIPTS, ids=names(SCRIPTS))
@pytest.mark.parametrize(
    "way",
    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc", "DOMParser"],
)
def test_a_script_makes_no_markup_of_texts(path: Path, way: str) -> None:
    assert way not in path.read_text("utf-8")


@pytest.mark.parametrize("path", SCRIPTS, ids=names(SCRIPTS))
def test_imports_name_what_a_module_exports(path: Path) -> None:
    for wanted, module in re.findall(r'^import \{ ([\w, ]+) \} from "\./([\w.]+)";$', path.read_text("utf-8"), re.M):
        exported = set(
            re.findall(r"^export (?:async )?(?:const|function|class) (\w+)", (PAGE / module).read_text(), re.M)
        )
        assert set(wanted.split(", ")) <= exported, f"{path.name} imports from {module}"


class Elements(HTMLParser):
    """Collects elements with their attributes, and whether a script or style has a text of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in {"script", "style"} and data.strip():
            self.inline.append(data)


def test_the_markup_has_no_script_or_style_of_its_own() -> None:
    elements = Elements()
    elements.feed((PAGE / "index.html").read_text("utf-8"))
    assert elements.inline == []
    assert not [tag for tag, attributes in elements.found for name in attributes if name == "style" or name[:2] == "on"]
    assert [tag for tag, _ in elements.found].count("script") == 1


def test_files_that_the_markup_names_are_there() -> None:
    elements = Elements()
    elements.feed((PAGE / "index.html").read_text("utf-8"))
    links = [attributes.get(key) for _, attributes in elements.found for key in ("src", "href")]
    files = [link.removeprefix("/page/") for link in links if link and link.startswith("/page/")]
    assert sorted(files) == sorted(path.name for path in PAGE.iterdir() if path.name != "index.html")


def test_ids_that_scripts_ask_for_are_in_the_markup_or_made() -> None:
    elements = Elements()
    elements.feed((PAGE / "index.html").read_text("utf-8"))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    scripts = "".join(path.read_text("utf-8") for path in SCRIPTS)
    made = set(re.findall(r'\bid: "([\w-]+)"', scripts))
    assert set(re.findall(r'byId\("([\w-]+)"\)', scripts)) <= set(ids) | made
