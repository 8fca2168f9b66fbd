"""What pip leaves behind when it installs a package."""

from __future__ import annotations

from pathlib import Path


def write_package_record(site: Path, name: str, module: str) -> None:
    """Make a folder of packages say that one of them installed a module."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "RECORD").write_text(f"{module}/__init__.py,,\n")
