"""Reads and writes bundles: a folder, or a zip of one, with bundle.json, ONNX graphs and a tokenizer.

Every file is read whole, checked against its hash and handed on as bytes, so that the checked bytes are those in use.
Nothing is unpacked and nothing is executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from hbi_engines.graph_content import check_graph
from hbi_infer.errors import BundleError, EngineError
from hbi_infer.model.bundle_files import MANIFEST, BundleFiles, open_files
from hbi_infer.model.manifest import BundleManifest, FileSpec

MANIFEST_LIMIT_BYTES = 2**20
SMALL_FILE_LIMIT_BYTES = 2**26
"""Largest size of the tokenizer, and of every file that is no graph."""
HOW_TO_GET = {
    "retrieve": "export one with 'hbi-export onnx' or 'hbi-export clip'",
    "rerank": "train a model with reconstruction_layers and export it with 'hbi-export onnx'",
    "qa": "train a model with 'hbi-train qa' and export it with 'hbi-export onnx'",
    "caption": "train a model with 'hbi-train caption' and export it with 'hbi-export onnx'",
}
"""Task -> how to get a bundle that can do it."""

FILE_LIMIT_BYTES = 2**31
"""Largest size of a file: ONNX cannot hold more in one file, and a zip can claim any size."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest has been read and whose files are there.

    Attributes:
        path: Folder or zip file.
        manifest: Content of bundle.json.
        sha256: Hash of the bytes of bundle.json, which hold the hashes of all other files: it names the whole model.
        files: Files that it is read from; None for those that are at `path` when one is read.
    """

    path: Path
    manifest: BundleManifest
    sha256: str
    files: BundleFiles | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Reads the manifest and checks that every file is there; a file's hash is checked when it is read.

        Raises:
            BundleError: There is no bundle, or it is damaged, unsafe or of a newer format; says what to do.
        """
        path = Path(path)
        files = open_files(path)
        content = files.read(MANIFEST, MANIFEST_LIMIT_BYTES)
        try:
            manifest = BundleManifest.from_json(content)
        except BundleError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        bundle = cls(path, manifest, hashlib.sha256(content).hexdigest(), files)
        if missing := [file for file in bundle._hashes() if file not in files.sizes_bytes]:
            raise BundleError(f"{path} lacks {', '.join(missing)}: copy the bundle again, or export it again")
        return bundle

    def require(self, task: str) -> None:
        """Checks that the bundle can do a task.

        Raises:
            BundleError: It cannot; says what it can do and how to get a bundle that can.
        """
        if task not in self.manifest.tasks:
            raise BundleError(
                f"the bundle {self.path} does not do {task}, only {', '.join(self.manifest.tasks)}: {HOW_TO_GET[task]}"
            )

    def graph_bytes(self, name: str) -> bytes:
        """Reads the ONNX graph `name`, checked against its hash; it names no other file.

        Raises:
            BundleError: The bundle has no such graph, the file is not the one that was exported, or it keeps weights
                in another file.
        """
        if name not in self.manifest.graphs:
            raise BundleError(
                f"{self.path} has no graph {name}; it has {', '.join(self.manifest.graphs)} and can do "
                f"{', '.join(self.manifest.tasks)}: use a bundle that was exported for the task"
            )
        content = self._checked(self.manifest.graphs[name].file)
        try:
            return check_graph(content)
        except EngineError as error:
            raise BundleError(f"{name} of {self.path}: {error}") from error

    def tokenizer_json(self) -> str:
        """Reads the text of the tokenizer's file, checked against its hash.

        Raises:
            BundleError: The file is not the one that was exported, or not UTF-8.
        """
        file = self.manifest.tokenizer.file
        try:
            return self._checked(file).decode()
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{self.path / file} is not UTF-8 (byte {error.start:,}): export the bundle again"
            ) from error

    def background_bytes(self) -> bytes:
        """Reads the file with the neutral sentences, checked against its hash.

        Raises:
            BundleError: The bundle has none, or the file is not the one that was exported.
        """
        return self._other_bytes("background")

    def familiarity_bytes(self) -> bytes:
        """Reads the file that tells clips like those of the training from others, checked against its hash.

        Raises:
            BundleError: The bundle has none, or the file is not the one that was exported.
        """
        return self._other_bytes("familiarity")

    def other_contents(self) -> dict[str, bytes]:
        """Reads the further files, as `write_bundle` takes them.

        Raises:
            BundleError: One is not the file that was exported.
        """
        return {name: self._other_bytes(name) for name in self.manifest.other_files}

    def _other_bytes(self, name: str) -> bytes:
        spec = self.manifest.other_files.get(name)
        if spec is None:
            raise BundleError(f"{self.path} has no {name}: export the bundle again")
        return self._checked(spec.file)

    def verify(self) -> None:
        """Reads every file and checks it.

        Raises:
            BundleError: A file is not the one that was exported.
        """
        for file in self._hashes():
            self._checked(file)

    def sizes_bytes(self) -> dict[str, int]:
        """Returns the sizes of the files, as stored on disk or as declared in the zip."""
        present = self._present().sizes_bytes
        return {file: present[file] for file in self._hashes()}

    def _present(self) -> BundleFiles:
        return self.files or open_files(self.path)

    def _hashes(self) -> dict[str, str]:
        tokenizer, others = self.manifest.tokenizer, self.manifest.other_files.values()
        hashes = {spec.file: spec.sha256 for spec in self.manifest.graphs.values()}
        return {tokenizer.file: tokenizer.sha256} | hashes | {spec.file: spec.sha256 for spec in others}

    def _checked(self, file: str) -> bytes:
        is_graph = any(file == spec.file for spec in self.manifest.graphs.values())
        content = self._present().read(file, FILE_LIMIT_BYTES if is_graph else SMALL_FILE_LIMIT_BYTES)
        expected, found = self._hashes()[file], hashlib.sha256(content).hexdigest()
        if found != expected:
            raise BundleError(
                f"{self.path / file} was altered or damaged (sha256 {found[:12]}, bundle.json says {expected[:12]}): "
                "copy the bundle again, or export it again"
            )
        return content


def default_bundle_path() -> Path:
    """Returns the folder of the embedded model."""
    return Path(str(resources.files("hbi_infer"))) / "bundles" / "shapes"


def require_bundle_folder(folder: Path | str) -> None:
    """Checks that a bundle may be written to a folder: there is none, or it is empty or a bundle.

    Raises:
        BundleError: The folder is something else.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is not a bundle; choose a new folder")


def write_bundle(
    folder: Path | str,
    manifest: BundleManifest,
    graphs: Mapping[str, bytes],
    tokenizer_json: str,
    others: Mapping[str, bytes] | None = None,
) -> BundleManifest:
    """Writes a bundle so that at every moment `folder` holds the old one, none, or the new one, never a part.

    Args:
        folder: Folder that is made, or replaced if it is a bundle.
        manifest: Manifest whose hashes are filled in here; it names the same graphs as `graphs`.
        graphs: Name -> serialised ONNX model.
        tokenizer_json: Text of the tokenizer's file.
        others: Field of the manifest -> content of that further file; the manifest gets its name.

    Returns:
        The manifest as written.

    Raises:
        BundleError: `folder` is something else than a bundle, the graphs are not those of the manifest, or the disk
            does not take it.
    """
    folder = Path(folder)
    if graphs.keys() != manifest.graphs.keys():
        raise BundleError(f"the manifest names the graphs {sorted(manifest.graphs)}; given were {sorted(graphs)}")
    require_bundle_folder(folder)
    others = others or {}
    manifest = dataclasses.replace(
        manifest,
        background=FileSpec("background.txt") if "background" in others else None,
        familiarity=FileSpec("familiarity.safetensors") if "familiarity" in others else None,
    )
    content = {manifest.tokenizer.file: tokenizer_json.encode()}
    content |= {manifest.graphs[name].file: graph for name, graph in graphs.items()}
    content |= {manifest.other_files[name].file: data for name, data in others.items()}
    hashes = {file: hashlib.sha256(data).hexdigest() for file, data in content.items()}
    manifest = dataclasses.replace(
        manifest,
        tokenizer=dataclasses.replace(manifest.tokenizer, sha256=hashes[manifest.tokenizer.file]),
        graphs={name: dataclasses.replace(spec, sha256=hashes[spec.file]) for name, spec in manifest.graphs.items()},
        background=manifest.background and FileSpec(manifest.background.file, hashes[manifest.background.file]),
        familiarity=manifest.familiarity and FileSpec(manifest.familiarity.file, hashes[manifest.familiarity.file]),
    )
    content[MANIFEST] = manifest.to_json()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            for file, data in content.items():
                with (new / file).open("wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise BundleError(
            f"cannot write {folder}: {error.strerror or error}; free space or choose another folder"
        ) from error
    return manifest
