"""What names mean, on a machine with and without files of those names."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from hbi_infer.catalog.names import KNOWN, HubName, NameWarning, nearest, parse_name
from hbi_infer.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that names are relative to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("shapes", "shapes"),
        ("everyday", "everyday"),
        ("openai/clip-vit-base-patch32", HubName("openai/clip-vit-base-patch32")),
        ("a/b@refs/pr/4", HubName("a/b", "refs/pr/4")),
        ("hub:a_b/c.d@v1.0", HubName("a_b/c.d", "v1.0")),
        ("a/b.zip", HubName("a/b.zip")),
        ("./a/b", Path("a/b")),
        ("/tmp/no/bundle", Path("/tmp/no/bundle")),
        ("../clip", Path("../clip")),
        ("clip.zip", Path("clip.zip")),
        ("~/clip", Path("~/clip")),
        ("some/folder/clip", Path("some/folder/clip")),
        ("my models/clip", Path("my models/clip")),
    ],
)
def test_what_nothing_on_the_machine_fits(text: str, meant: object) -> None:
    assert parse_name(text) == meant


@pytest.mark.parametrize("known", KNOWN)
def test_well_known_models_are_names_of_the_hub(known: str) -> None:
    assert parse_name(known) == HubName(known)


@pytest.mark.parametrize(
    "text",
    ["a", "a/b/c", "a--b/c", "a/b..c", "-a/b", "a/b-", "a/b@", "a/b@v 1", "a/b@../x", "a/b@v1/", "ä/b", "a/b@v1@v2"],
)
def test_what_is_no_name_of_the_hub(text: str) -> None:
    assert HubName.parse(text) is None
    with pytest.raises(InputError, match="is no name of the hub: give hub:owner/name or hub:owner/name@revision"):
        parse_name(f"hub:{text}")


def test_a_path_object_is_never_a_name() -> None:
    assert parse_name(Path("openai/clip-vit-base-patch32")) == Path("openai/clip-vit-base-patch32")
    assert parse_name(Path("shapes")) == Path("shapes")


def test_a_local_folder_that_looks_like_a_name_of_the_hub_wins_and_is_said(here: Path) -> None:
    (here / "openai" / "clip").mkdir(parents=True)
    message = rf"openai/clip is taken for {here}/openai/clip, not for the model of the hub, which is hub:openai/clip"
    with pytest.warns(NameWarning, match=message):
        assert parse_name("openai/clip") == Path("openai/clip")
    assert parse_name("hub:openai/clip") == HubName("openai/clip")


def test_a_local_bundle_wins_over_a_word_and_another_folder_does_not(here: Path) -> None:
    (here / "shapes").mkdir()
    assert parse_name("shapes") == "shapes"
    (here / "shapes" / "bundle.json").write_text("{}")
    with pytest.warns(NameWarning, match=f"shapes is taken for {here}/shapes, not for the model of that name"):
        assert parse_name("shapes") == Path("shapes")


def test_a_plain_folder_is_nothing_to_speak_of(here: Path) -> None:
    (here / "clip-b32").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_name("clip-b32") == Path("clip-b32")


def test_a_missing_bundle_in_a_local_folder_is_not_asked_of_the_hub(here: Path) -> None:
    (here / "runs").mkdir()
    with pytest.raises(InputError, match="there is no bundle at runs/model@best, which is taken for a path because"):
        parse_name("runs/model@best")
    with pytest.raises(InputError, match=r"mend the path, or give hub:runs/model for the model of the hub$"):
        parse_name("runs/model")


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("shape", "shapes"),
        ("Everday", "everyday"),
        ("clip-vit-base-patch-32", "openai/clip-vit-base-patch32"),
        ("siglip2-base-patch16", "google/siglip2-base-patch16-224"),
        ("mine/clp", "mine/clip"),
    ],
)
def test_a_typo(typo: str, meant: str) -> None:
    assert nearest(typo, ["mine/clip"]) == meant
    if "/" not in typo:
        message = rf"^there is no bundle at {typo} and no model of that name: the nearest known model is {meant}$"
        with pytest.raises(InputError, match=message):
            parse_name(typo)


def test_a_name_that_is_like_nothing() -> None:
    assert nearest("xyzzy") == ""
    with pytest.raises(InputError, match=r"^there is no bundle at xyzzy and no model of that name: give a bundle's"):
        parse_name("xyzzy")
    with pytest.raises(InputError, match=r"^the name of the model is empty: give a bundle's folder or zip, shapes"):
        parse_name(" ")


def test_a_name_of_the_hub_is_written_with_its_revision_unless_that_is_the_usual_one() -> None:
    assert [str(HubName("a/b")), str(HubName("a/b", "v1"))] == ["a/b", "a/b@v1"]
