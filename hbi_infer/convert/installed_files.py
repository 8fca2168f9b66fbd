"""Files of installed packages, read without running a line of the packages and checked against known hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hbi_infer.errors import BundleError, InputError


@dataclass(frozen=True)
class InstalledFile:
    """A file of a package.

    Attributes:
        package: Name of the package, as pip knows it.
        version: Version that has the file.
        module: Folder of the package among the installed ones.
        file: Path of the file in that folder.
        sha256: Hash of its bytes.
    """

    package: str
    version: str
    module: str
    file: str
    sha256: str

    @property
    def path(self) -> Path | None:
        """Path of the file; None if the package is not installed. Its bytes are not checked."""
        spec = find_spec(self.module)  # looks for a folder, and imports nothing, for the name has no dot
        folders = [] if spec is None else list(spec.submodule_search_locations or [])
        return next((path for folder in folders if (path := Path(folder, self.file)).is_file()), None)

    def read(self, extra: str) -> bytes:
        """Reads the file.

        Args:
            extra: Name of our extra that installs the package.

        Raises:
            InputError: The package is not installed.
            BundleError: The file cannot be read, or is not the known one.
        """
        path = self.path
        if path is None:
            raise InputError(f'the package {self.package} is not installed: pip install "hbi-infer[{extra}]"')
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise BundleError(
                f"{path} is another file than that of {self.package} {self.version} (sha256 {found[:12]}, expected "
                f"{self.sha256[:12]}): pip install --force-reinstall {self.package}=={self.version}"
            )
        return content
