"""Names of models: a bundle on this machine, a word of ours, or a model of the hub.

Only a name of the hub makes anything be fetched, so a text counts as one only where nothing on this machine fits it.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hbi_infer.errors import InputError
from hbi_infer.files import exists, is_file, is_folder
from hbi_infer.model.bundle_files import MANIFEST

SHAPES = "shapes"
"""The embedded model, which knows only coloured shapes."""
EVERYDAY = "everyday"
"""The model that is built from packages, without a hub."""
WORDS = (SHAPES, EVERYDAY)
HUB = "hub:"
"""Prefix that makes a text a name of the hub, whatever lies on this machine."""
MAIN = "main"
"""Revision of a model of the hub that is meant where none is given."""
KNOWN = (
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "google/siglip-base-patch16-224",
    "google/siglip2-base-patch16-224",
)
"""Well-known models of the hub, from which a name with a typo is put right."""
EXAMPLE = KNOWN[0]
CHOICES = f"give a bundle's folder or zip, {SHAPES}, {EVERYDAY}, or a model of the hub such as {EXAMPLE}"

_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_HUB_NAME = re.compile(rf"({_PART}/{_PART})(?:@([\w][\w./-]{{0,199}}))?", re.ASCII)


class NameWarning(UserWarning):
    """A name could mean two things."""


@dataclass(frozen=True)
class HubName:
    """A model of the hub.

    Attributes:
        model: Owner and name, such as "openai/clip-vit-base-patch32".
        revision: Branch, tag or commit.
    """

    model: str
    revision: str = MAIN

    def __str__(self) -> str:
        return self.model if self.revision == MAIN else f"{self.model}@{self.revision}"

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """Returns the model that `owner/name` or `owner/name@revision` names; None if the text is neither."""
        found = _HUB_NAME.fullmatch(text)
        if found is None or re.search(r"--|\.\.", found[1]) or re.search(r"\.\.|//|[/.]$", found[2] or ""):
            return None
        return cls(found[1], found[2] or MAIN)


def parse_name(name: Path | str, at_hand: Sequence[str] = ()) -> Path | str | HubName:
    """Finds out what a name means.

    Args:
        name: A path, one of `WORDS`, `owner/name`, `owner/name@revision`, or one of the last two behind `hub:`.
        at_hand: Names of models that are built, beside the well-known ones, for texts with a typo.

    Returns:
        A bundle's path, one of `WORDS`, or a model of the hub.

    Raises:
        InputError: The name is empty, or nothing fits it.

    Warns:
        NameWarning: A bundle on this machine goes before what else the name could mean.
    """
    if isinstance(name, Path):
        return name
    if not name.strip():
        raise InputError(f"the name of the model is empty: {CHOICES}")
    if name.startswith(HUB):
        return _hub_name(name)
    path, of_hub = Path(name), HubName.parse(name)
    if _is_clearly_a_path(name):
        return path
    if name in WORDS:
        if not (is_file(path) or exists(path / MANIFEST)):
            return name
        _tell_local(name, path)
    elif of_hub and exists(path):
        _tell_local(name, path)
    if exists(path):
        return path
    if of_hub and is_folder(Path(of_hub.model).parent):
        raise InputError(
            f"there is no bundle at {name}, which is taken for a path because the folder {Path(of_hub.model).parent} "
            f"is here: mend the path, or give {HUB}{of_hub} for the model of the hub"
        )
    return of_hub or _path_or_typo(name, at_hand)


def parse_default(name: str) -> Path | str | HubName:
    """Finds out what a name in the user's settings means; the folder that a command is started in has no say.

    Args:
        name: A full path, one of `WORDS`, or a model of the hub.

    Raises:
        InputError: It is none of these.
    """
    if name in WORDS:
        return name
    if (path := Path(name)).is_absolute():
        return path
    if of_hub := HubName.parse(name):
        return of_hub
    raise InputError(f"{name!r:.200} is neither a full path nor the name of a model")


def nearest(name: str, at_hand: Sequence[str] = ()) -> str:
    """Returns the name of a known model that is most like a text; empty if none is."""
    known = dict.fromkeys([*WORDS, *at_hand, *KNOWN])
    by_form = {form.lower(): whole for whole in known for form in (whole.rpartition("/")[2], whole)}
    near = difflib.get_close_matches(name.lower(), by_form, n=1, cutoff=0.75)
    return by_form[near[0]] if near else ""


def _hub_name(name: str) -> HubName:
    if (found := HubName.parse(name.removeprefix(HUB))) is None:
        raise InputError(f"{name!r:.200} is no name of the hub: give {HUB}owner/name or {HUB}owner/name@revision")
    return found


def _tell_local(name: str, path: Path) -> None:
    whole = path.absolute()
    other = "the model of that name" if name in WORDS else f"the model of the hub, which is {HUB}{name}"
    warnings.warn(f"{name} is taken for {whole}, not for {other}", NameWarning, stacklevel=4)


def _is_clearly_a_path(name: str) -> bool:
    is_zip = name.lower().endswith(".zip") and name.count("/") != 1
    return name.startswith((".", "~")) or Path(name).is_absolute() or is_zip


def _path_or_typo(name: str, at_hand: Sequence[str]) -> Path:
    """Returns the path that a text can only be; raises an error that names the nearest model for any other text."""
    near = nearest(name, at_hand)
    if not near and len(Path(name).parts) > 1:
        return Path(name)
    hint = f"the nearest known model is {near}" if near else CHOICES
    raise InputError(f"there is no bundle at {name} and no model of that name: {hint}")
