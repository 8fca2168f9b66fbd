"""Downloads of a model's files from the hub, checked against the hashes that the hub states, and gone on with.

`huggingface_hub` makes the requests, so that its settings hold: HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the token of
`hf auth login`, HF_HOME, HF_HUB_DOWNLOAD_TIMEOUT, and the proxies of the environment. A file that its cache holds is
taken from there; nothing is added to that cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbi_infer import __version__
from hbi_infer.catalog.names import HubName, nearest
from hbi_infer.catalog.shelf import COMMIT
from hbi_infer.errors import HubError

Progress = Callable[[int, int], None]
"""(bytes done, bytes in total) -> None."""

CONFIGURATION = "config.json"
OPEN_CLIP = "open_clip_config.json"
DESCRIPTIONS = (
    CONFIGURATION,
    OPEN_CLIP,
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
"""Files that say what a model is and how it reads texts and pictures."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
SHARDS_INDEX = "model.safetensors.index.json"
DESCRIPTION_LIMIT_BYTES = 2**26
WEIGHTS_LIMIT_BYTES = 2**35
"""Largest size of a file with weights: far beyond any model that is converted."""
_SETTINGS = {"HF_HUB_DISABLE_TELEMETRY": True, "DOWNLOAD_CHUNK_SIZE": 2**18}
"""Constants of `huggingface_hub` while it works for us."""
LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"


@dataclass(frozen=True)
class HubFile:
    """A file of a model, as the hub describes it.

    Attributes:
        name: Its name; it lies in no folder.
        size_bytes: Its size.
        digest: Its SHA-256, or the SHA-1 that git gives it.
    """

    name: str
    size_bytes: int
    digest: str

    @property
    def is_description(self) -> bool:
        """Whether it is a small file that says what the model is."""
        return self.name in DESCRIPTIONS or self.name == SHARDS_INDEX


@dataclass(frozen=True)
class HubModel:
    """A model of the hub at one commit.

    Attributes:
        name: Name that was asked for.
        commit: Commit that its revision is.
        files: Files that a conversion needs.
        unreached: Reason why the hub could not be asked, where the cache of `huggingface_hub` was instead; else "".
    """

    name: HubName
    commit: str
    files: tuple[HubFile, ...]
    unreached: str = ""

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)


def needed(names: Iterable[str]) -> list[str]:
    """Returns which of a model's files a conversion needs: descriptions, and weights in the safest of their forms."""
    names = sorted(set(names))
    weights = next((name for name in WEIGHTS if name in names), None)
    shards = [name for name in names if SHARD.fullmatch(name)] if SHARDS_INDEX in names else []
    if CONFIGURATION in names and weights != WEIGHTS[0] and shards:
        chosen = [SHARDS_INDEX, *shards]
    elif CONFIGURATION in names and weights:
        chosen = [weights]
    else:
        chosen = [name for name in OPEN_CLIP_WEIGHTS if name in names][:1] or ([weights] if weights else [])
    return [name for name in names if name in DESCRIPTIONS] + chosen


def look_up(name: HubName) -> HubModel:
    """Asks the hub, with one request, for the commit of a revision and for its files.

    Where the hub does not answer, or is not to be asked, what the cache of `huggingface_hub` holds is taken.

    Raises:
        HubError: The hub cannot be reached or has no such model, and the cache has none either; says what to do.
    """
    try:
        return _ask(name)
    except HubError as error:
        if cached := _cached(name, str(error)):
            return cached
        raise


def _ask(name: HubName) -> HubModel:
    from huggingface_hub import HfApi

    with _told(name):
        info = HfApi(endpoint(), library_name="hbi-infer", library_version=__version__).model_info(
            name.model, revision=name.revision, files_metadata=True
        )
        commit, siblings = str(info.sha), {each.rfilename: each for each in info.siblings or ()}
        files = tuple(_described(name, siblings[each]) for each in needed(siblings))
    if not COMMIT.fullmatch(commit):
        raise _no_hub(name, f"it names the commit {commit!r:.80}")
    return HubModel(name, commit, files)


def _cached(name: HubName, reason: str) -> HubModel | None:
    """Returns the model as the cache of `huggingface_hub` has it; None if it has not."""
    from huggingface_hub import try_to_load_from_cache

    descriptions = [
        try_to_load_from_cache(name.model, each, revision=name.revision) for each in (CONFIGURATION, OPEN_CLIP)
    ]
    folder = next((Path(each).parent for each in descriptions if isinstance(each, str)), None)
    if folder is None or not COMMIT.fullmatch(folder.name):
        return None
    names = needed(file.name for file in folder.iterdir())
    files = (HubFile(each, _size(folder / each), _cached_digest(folder / each)) for each in names)
    return HubModel(name, folder.name, tuple(files), reason)


def _cached_digest(path: Path) -> str:
    """Returns the hash that the cache gives a file in the name of its content, or else the content's own."""
    digest = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
        return digest
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _described(name: HubName, sibling: Any) -> HubFile:
    """Checks what the hub says of a file."""
    size_bytes = sibling.size
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    file = HubFile(sibling.rfilename, size_bytes, digest)
    if not (isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest)):
        raise _no_hub(name, f"it states no hash of {file.name}")
    limit = DESCRIPTION_LIMIT_BYTES if file.is_description else WEIGHTS_LIMIT_BYTES
    if not (isinstance(size_bytes, int) and 0 <= size_bytes <= limit):
        raise HubError(f"{file.name} of {name} has {size_bytes!r} bytes; the most is {limit:,}: give another model")
    return file


def download(model: HubModel, folder: Path | str, files: Iterable[HubFile], progress: Progress | None = None) -> None:
    """Gets files of a model into a folder; what is there already is kept, and a part of a file is gone on with.

    Args:
        model: The model.
        folder: Folder of this commit's files; made if need be.
        files: Those of the model's files to get.
        progress: Called while bytes arrive, with the bytes of all the model's files.

    Raises:
        HubError: A file cannot be had, or is not the one that the hub describes; says what to do.
    """
    folder = Path(folder)
    done = sum(_size(folder / file.name) for file in model.files)
    for file in files:
        target = folder / file.name
        if _size(target) == file.size_bytes and target.is_file():
            continue
        before = done

        def show(size_bytes: int, before: int = before) -> None:
            if progress is not None:
                progress(before + size_bytes, model.size_bytes)

        with _told(model.name):
            folder.mkdir(parents=True, exist_ok=True)
            if not _take_cached(model, file, target):
                _fetch(model, file, target, show)
        done = before + file.size_bytes
        show(file.size_bytes)


def _fetch(model: HubModel, file: HubFile, target: Path, show: Callable[[int], None]) -> None:
    """Downloads a file beside its place, checks it, and puts it there."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    silent: Any = _Silent
    part = target.with_name(f"{file.name}.{file.digest[:12]}.part")
    if _size(part) > file.size_bytes:
        part.unlink()
    with _Part(part, file.size_bytes, show) as stream:
        http_get(
            hf_hub_url(model.name.model, file.name, revision=model.commit),
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(library_name="hbi-infer", library_version=__version__),
            expected_size=file.size_bytes,
            tqdm_class=silent,
        )
        stream.flush()
        os.fsync(stream.fileno())
    if (found := digest_of(part, file)) != file.digest:
        part.unlink()
        raise HubError(
            f"{file.name} of {model.name} was altered on the way (its hash is {found[:12]}, the hub says "
            f"{file.digest[:12]}) and is thrown away: try again, on another network if it stays so"
        )
    part.replace(target)


def _take_cached(model: HubModel, file: HubFile, target: Path) -> bool:
    """Takes a file from the cache of `huggingface_hub`, if it is there and right."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model.name.model, file.name, revision=model.commit)
    if not isinstance(cached, str) or _size(Path(cached)) != file.size_bytes:
        return False
    real = Path(cached).resolve()
    if digest_of(real, file) != file.digest:
        return False
    try:
        target.hardlink_to(real)
    except OSError:  # another disk, or one without such links
        copy = target.with_name(f"{file.name}.copy")
        shutil.copyfile(real, copy)
        copy.replace(target)
    return True


def digest_of(path: Path | str, file: HubFile) -> str:
    """Returns the hash of a file's content, of the kind that the hub states for it."""
    path = Path(path)
    with path.open("rb") as stream:
        if len(file.digest) == 64:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        while part := stream.read(2**20):
            digest.update(part)
        return digest.hexdigest()


class _Part(io.BufferedWriter):
    """A file that is added to, tells how large it is, and grows no larger than the hub said."""

    def __init__(self, path: Path, limit_bytes: int, show: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._limit_bytes, self._show = limit_bytes, show

    def write(self, content: Any, /) -> int:
        """Adds to the file.

        Raises:
            OSError: It would be larger than the hub said.
        """
        if self.tell() + len(content) > self._limit_bytes:
            raise OSError(f"more than the {self._limit_bytes:,} bytes that were stated arrive")
        written = super().write(content)
        self._show(self.tell())
        return written


class _Silent:
    """A progress bar for `huggingface_hub` that shows nothing; ours counts all files."""

    def __init__(self, **_options: Any) -> None: ...

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def update(self, _size_bytes: int) -> None:
        """Takes note of bytes that arrived."""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextlib.contextmanager
def _told(name: HubName) -> Iterator[None]:
    """Turns the errors of `huggingface_hub` and of the network into one that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    network_error: Any = HfHubHTTPError.__bases__[0]  # the root of its HTTP client's errors
    try:
        with _quiet():
            yield
    except OfflineModeIsEnabled as error:
        raise HubError(
            f"HF_HUB_OFFLINE is set and {name} is not on this machine: unset it to download the model, or give another "
            "one; hbi-infer models lists what is at hand"
        ) from error
    except HfHubHTTPError as error:
        raise HubError(_refusal(name, error)) from error
    except network_error as error:
        raise HubError(
            f"cannot get {name} from {endpoint()} ({_line(error)}): check the network and HF_ENDPOINT; what has "
            "arrived is kept, and the same command goes on from there"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise HubError(f"cannot get {name} from {endpoint()} ({_line(error)}): try again") from error
        raise HubError(
            f"cannot write what arrives of {name} ({error.strerror}): free space, or set XDG_DATA_HOME to another place"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _no_hub(name, _line(error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lets `huggingface_hub` log nothing, ask for nothing but the model, and hand on what arrives in small parts.

    For its telemetry it would ask the hub for a list of programs that may have started this one, and name it.
    """
    from huggingface_hub import constants

    log = logging.getLogger("huggingface_hub")
    level, settings = log.level, {name: getattr(constants, name) for name in _SETTINGS}
    log.setLevel(logging.CRITICAL)
    vars(constants).update(_SETTINGS)
    try:
        yield
    finally:
        vars(constants).update(settings)
        log.setLevel(level)


def _refusal(name: HubName, error: Any) -> str:
    """Says what an answer of the hub means that is no success."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: accept its terms at {endpoint()}/{name.model}, then {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        near = nearest(name.model)
        hint = f"; the nearest known model is {near}" if near and near != name.model else ""
        return f"{endpoint()} has no model {name.model}, or it is private: check the name, or {LOG_IN}{hint}"
    if isinstance(error, RevisionNotFoundError):
        return f"{name.model} has no revision {name.revision}: give one of those at {endpoint()}/{name.model}"
    if isinstance(error, DisabledRepoError):
        return f"{name.model} was disabled at {endpoint()}: give another model"
    if status in (401, 403):
        return f"{endpoint()} refuses {name} (status {status}): the token may be wrong or out of date; {LOG_IN}"
    if status == 404:
        return f"{endpoint()} lists a file of {name} and does not give it (status 404): give another revision"
    return f"{endpoint()} answers with status {status} for {name}: try again later"


def _no_hub(name: HubName, reason: str) -> HubError:
    return HubError(
        f"{endpoint()} does not answer as the hub does for {name} ({reason}): check HF_ENDPOINT, and that no login "
        "page of the network answers in its place"
    )


def endpoint() -> str:
    """Returns the address of the hub."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _line(error: Exception) -> str:
    """Returns the first line of an error's text, or its kind where it has none."""
    text = str(error).strip() or type(error).__name__
    return f"{text.splitlines()[0]:.200}"
