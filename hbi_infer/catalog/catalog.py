"""Names of models to bundles: what is here is used, and a model of the hub that is not is downloaded and converted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hbi_infer.catalog.listener import Listener
from hbi_infer.catalog.names import EVERYDAY, SHAPES, HubName, parse_default, parse_name
from hbi_infer.catalog.settings import VARIABLE, Default, default_model, read_default, settings_file, write_default
from hbi_infer.catalog.shelf import Shelf, size_of
from hbi_infer.errors import BundleError, HBIError, HubError, InputError
from hbi_infer.files import exists
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.model.bundle_files import MANIFEST

if TYPE_CHECKING:
    from hbi_infer.catalog.hub import HubModel

EMBEDDED = "embedded in hbi-infer"


class Makers(Protocol):
    """Whatever makes bundles: the converter, and the builder of `everyday`."""

    def version(self, name: str | HubName) -> str:
        """Returns the version of the maker of a model: letters and digits."""

    def check(self, source: Path | str) -> None:
        """Looks at a model's descriptions, before its weights are there.

        Raises:
            BundleError: The model is of a kind that is not supported.
        """

    def make(self, name: str | HubName, source: Path | str, out: Path | str, commit: str, listener: Listener) -> None:
        """Makes a bundle at `out`, of the files in `source` if it is a model of the hub; tells each step of it."""


@dataclass(frozen=True)
class AtHand:
    """A model that can be used without being downloaded.

    Attributes:
        name: Name for `--bundle`.
        origin: Place that it comes from.
        revision: Commit of the hub; "" for another origin.
        size_bytes: Size of its files.
        tasks: Tasks that it can do.
        made: Time at which its bundle was written on this machine.
        path: The bundle's folder or zip.
        is_default: Whether it is meant where no model is given.
        is_current: Whether the present version of the converter made it.
    """

    name: str
    origin: str
    revision: str
    size_bytes: int
    tasks: tuple[str, ...]
    made: datetime
    path: Path
    is_default: bool
    is_current: bool

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return {**asdict(self), "made": self.made.isoformat(timespec="seconds"), "path": str(self.path)}


class Catalog:
    """The models of this machine and the way to more.

    Args:
        makers: Maker of bundles.
        shelf: Bundles of this machine; by default the user's own.
    """

    def __init__(self, makers: Makers, shelf: Shelf | None = None) -> None:
        self._makers, self.shelf = makers, shelf or Shelf()

    def resolve(self, name: Path | str | None = None, listener: Listener | None = None) -> Path:
        """Returns the bundle that a name means; gets a model of the hub, or builds `everyday`, if it is not here.

        Args:
            name: A path, "shapes", "everyday", or a model of the hub; None for the default.
            listener: Told what is done.

        Raises:
            InputError: Nothing fits the name, or the settings are damaged.
            HubError: The hub does not give the model.
            BundleError: The model cannot be converted or kept.

        Warns:
            NameWarning: The name could mean two things.
        """
        if name is not None:
            return self._bundle(parse_name(name, self.names()), listener)
        default = default_model()
        meant = self._default(default)
        if isinstance(meant, Path) and not exists(meant):
            raise InputError(f"there is no bundle at {meant}, which {default.source} names: {_cure(default)}")
        return self._bundle(meant, listener)

    def get(self, name: str, listener: Listener | None = None) -> Path:
        """Gets the newest commit of a model of the hub, or builds `everyday`; a damaged bundle is made anew.

        Args:
            name: "everyday", or a model of the hub.
            listener: Told what is done.

        Returns:
            The bundle's folder.

        Raises:
            InputError: The name is another one.
            HubError: The hub does not give the model.
            BundleError: The model cannot be converted or kept.

        Warns:
            NameWarning: The name could mean two things.
        """
        meant = parse_name(name, self.names())
        if isinstance(meant, Path) or meant == SHAPES:
            raise InputError(f"{name} is on this machine already: give a model of the hub, or {EVERYDAY}")
        return self._get(meant, listener or Listener(), refresh=True)

    def use(self, name: Path | str, listener: Listener | None = None) -> Path:
        """Makes a model the default, after getting it if it is not here.

        Returns:
            The bundle's folder or zip.

        Raises:
            InputError: Nothing fits the name, or the settings cannot be written.
            HubError: The hub does not give the model.
            BundleError: The bundle cannot be used.
        """
        meant = parse_name(name, self.names())
        path = self._bundle(meant, listener)
        Bundle.load(path)
        write_default(str(path.absolute() if isinstance(meant, Path) else meant), settings_file())
        return path

    def remove(self, name: str) -> tuple[int, bool]:
        """Removes a model that was built on this machine, and what is left of its download.

        Returns:
            Size of what was removed, in bytes, and whether the model was the default; the embedded one is from then on.

        Raises:
            InputError: The model was not built here.
            BundleError: It cannot be removed.

        Warns:
            NameWarning: The name could mean two things.
        """
        meant = parse_name(name, self.names())
        if isinstance(meant, Path):
            raise InputError(f"{name} was not built by hbi-infer, which leaves it as it is: delete it yourself")
        if meant == SHAPES:
            raise InputError(f"{SHAPES} is a part of hbi-infer and cannot be removed")
        with self.shelf.sole_builder():
            size_bytes = self.shelf.remove(meant)
        if not size_bytes:
            raise InputError(f"{meant} is not on this machine: hbi-infer models lists what is")
        was_default = read_default(settings_file()) == str(meant)
        if was_default:
            write_default(SHAPES, settings_file())
        return size_bytes, was_default

    def default_at_hand(self) -> tuple[Default, Path | None]:
        """Returns the default model and its bundle, or None in place of one that is not on this machine.

        Raises:
            InputError: The settings are damaged or name no model.
            BundleError: A record of revisions is damaged.
        """
        default = default_model()
        meant = self._default(default)
        if isinstance(meant, Path):
            return default, meant if exists(meant) else None
        return default, self._found(meant)

    def names(self) -> list[str]:
        """Returns the names of the bundles that were built on this machine."""
        with suppress(HBIError):
            return [str(each.name) for each in self.shelf.shelved()]
        return []

    def at_hand(self) -> tuple[list[AtHand], list[str]]:
        """Returns the models that can be used at once, the embedded one first, and a line for each damaged one.

        Raises:
            InputError: The settings are damaged.
            BundleError: A record of revisions is damaged.
        """
        default = self._default(default_model())
        places = [(SHAPES, default_bundle_path(), "", True)]
        for each in self.shelf.shelved():
            is_current = each.version == self._makers.version(each.name)
            places.append((str(each.name), each.path, each.commit, is_current))
        if isinstance(default, Path):
            places.append((str(default), default, "", True))
        found, damaged = [], []
        for name, path, commit, is_current in places:
            try:
                found.append(_at_hand(name, path, commit, is_default=name == str(default), is_current=is_current))
            except BundleError as error:
                damaged.append(f"{name} cannot be used: {error}")
        return found, damaged

    def _default(self, default: Default) -> Path | str | HubName:
        """Returns what the name of the default model means."""
        try:
            if default.source == VARIABLE:
                return parse_name(default.name, self.names())
            return parse_default(default.name)
        except InputError as error:
            raise InputError(f"{default.source} names no model ({error}): {_cure(default)}") from error

    def _bundle(self, meant: Path | str | HubName, listener: Listener | None) -> Path:
        """Returns the bundle that a name means, which is got if it is not here."""
        if isinstance(meant, Path):
            return meant
        return self._found(meant) or self._get(meant, listener or Listener(), refresh=False)

    def _found(self, meant: str | HubName) -> Path | None:
        """Returns the bundle of a model, or None if it is not here."""
        return default_bundle_path() if meant == SHAPES else self.shelf.find(meant, self._makers.version(meant))

    def _get(self, meant: str | HubName, listener: Listener, *, refresh: bool) -> Path:
        """Gets a model, as the only process that does; without a refresh one that is here by now will do."""
        version = self._makers.version(meant)

        def wait() -> None:
            listener.step("another process is getting a model; waiting until it is done")

        with self.shelf.sole_builder(wait):
            if not refresh and (found := self.shelf.find(meant, version)):
                return found
            if isinstance(meant, HubName):
                return self._get_from_hub(meant, version, listener)
            return self._make(meant, self.shelf.folder, "", version, listener)

    def _get_from_hub(self, name: HubName, version: str, listener: Listener) -> Path:
        from hbi_infer.catalog import hub  # a command that needs no download does not wait for it

        listener.step(f"looking {name} up in {hub.endpoint()}")
        model = hub.look_up(name)
        if model.unreached:
            listener.step(f"{model.unreached}; the cache of huggingface_hub has {name} and is used")
        there = self.shelf.find(HubName(name.model, model.commit), version)
        if there and _is_whole(there):
            self.shelf.point(name, model.commit)
            return there
        folder = self.shelf.downloads(name, model.commit)
        self._check_room(model)
        hub.download(model, folder, [file for file in model.files if file.is_description], listener.downloaded)
        with self._forgetting(name):
            self._makers.check(folder)
        listener.step(f"downloading {model.size_bytes / 1e6:,.1f} MB of {name}")
        hub.download(model, folder, model.files, listener.downloaded)
        path = self._make(name, folder, model.commit, version, listener)
        self.shelf.forget_downloads(name)
        return path

    def _check_room(self, model: HubModel) -> None:
        """Refuses a model before its download if the disk has no room for it."""
        folder = self.shelf.folder
        needed_bytes = 2 * model.size_bytes - size_of(self.shelf.downloads(model.name, model.commit))
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed_bytes:
            raise HubError(
                f"{model.name} needs {needed_bytes / 1e9:,.2f} GB while it is converted, and {folder} has "
                f"{free_bytes / 1e9:,.2f} GB free: free space, or set XDG_DATA_HOME to another place"
            )

    def _make(self, name: str | HubName, source: Path, commit: str, version: str, listener: Listener) -> Path:
        """Makes a bundle and puts it in its place."""
        listener.step(f"building the bundle of {name}")
        with self.shelf.building() as folder:
            with self._forgetting(name):
                self._makers.make(name, source, folder / "bundle", commit, listener)
            return self.shelf.keep(folder / "bundle", name, commit, version)

    @contextmanager
    def _forgetting(self, name: str | HubName) -> Iterator[None]:
        """Throws files of the hub away if they cannot be converted; a full disk is no fault of theirs."""
        try:
            yield
        except HBIError as error:
            if not isinstance(name, HubName):
                raise
            if not isinstance(error.__cause__, OSError):
                self.shelf.forget_downloads(name)
            raise BundleError(f"{name} cannot be converted: {error}") from error


def _is_whole(path: Path) -> bool:
    try:
        Bundle.load(path).verify()
    except BundleError:
        return False
    return True


def _at_hand(name: str, path: Path, commit: str, *, is_default: bool, is_current: bool) -> AtHand:
    bundle = Bundle.load(path)
    file = path / MANIFEST if path.is_dir() else path
    return AtHand(
        name=name,
        origin=EMBEDDED if name == SHAPES else bundle.manifest.provenance.origin,
        revision=commit,
        size_bytes=sum(bundle.sizes_bytes().values()),
        tasks=bundle.manifest.tasks,
        made=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        path=path,
        is_default=is_default,
        is_current=is_current,
    )


def _cure(default: Default) -> str:
    """Says how to get rid of a default that cannot be used."""
    if default.source == VARIABLE:
        return f"set {VARIABLE} to the name of a model, or unset it"
    return "choose another default with: hbi-infer models use NAME"


def our_catalog() -> Catalog:
    """Returns the catalog of the user's models, which our converter makes."""
    from hbi_infer.catalog.makers import Converters

    return Catalog(Converters())


def resolve(name: Path | str | None = None, listener: Listener | None = None) -> Path:
    """Returns the bundle that a name means, for this user; see `Catalog.resolve`."""
    return our_catalog().resolve(name, listener)
