"""Our makers of bundles: the converter for models of the hub, and the builder of `everyday`."""

from __future__ import annotations

from pathlib import Path

from hbi_infer.catalog.listener import Listener
from hbi_infer.catalog.names import HubName


class Converters:
    """The makers that a `Catalog` has by default. Nothing of `onnx` is imported before a bundle is made."""

    def version(self, name: str | HubName) -> str:
        """Returns the version of the maker of a model."""
        from hbi_infer.convert.versions import CONVERTER_VERSION, EVERYDAY_VERSION

        return str(CONVERTER_VERSION if isinstance(name, HubName) else EVERYDAY_VERSION)

    def check(self, source: Path | str) -> None:
        """Looks at a model's descriptions, before its weights are there.

        Raises:
            BundleError: The model is of a kind that is not supported.
        """
        from hbi_infer.convert.converter import check_kind

        check_kind(source)

    def make(self, name: str | HubName, source: Path | str, out: Path | str, commit: str, listener: Listener) -> None:
        """Makes a bundle at `out`, of the files in `source` if it is a model of the hub; tells each step of it.

        Raises:
            BundleError: The model cannot be converted, or the bundle cannot be written.
        """
        if isinstance(name, HubName):
            from hbi_infer.convert.converter import convert_model

            convert_model(source, out, name=name.model, origin=name.model, revision=commit, progress=listener.step)
        else:
            from hbi_infer.convert.everyday import build_everyday

            build_everyday(out, progress=listener.built)
