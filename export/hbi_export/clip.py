"""Exports a model that others trained, such as CLIP, for zero-shot search, without PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from hbi_infer.catalog.hub import download, look_up
from hbi_infer.catalog.names import HubName
from hbi_infer.convert.converter import check_kind, convert_model
from hbi_infer.convert.onnx_builder import Stored
from hbi_infer.errors import InputError
from hbi_infer.model.bundle import require_bundle_folder
from hbi_infer.model.manifest import BundleManifest
from hbi_infer.options import FrameSampling


def export_clip(
    source: str,
    output: Path | str,
    *,
    sampling: FrameSampling,
    weights: Stored,
    merge_tokens: int = 0,
    say: Callable[[str], object] = lambda _: None,
) -> BundleManifest:
    """Converts a model from a local folder, or from the hub.

    Args:
        source: A folder that transformers or OpenCLIP saved, or a name on the hub, `owner/name` or
            `owner/name@revision`.
        output: Folder of the bundle.
        sampling: Sampling of frames; how pictures are made, and their size, is the model's own.
        weights: Format that weights are stored in.
        merge_tokens: Number of patches that each layer of the frame encoder merges away.
        say: Called with a line about the step that begins.

    Returns:
        The manifest as written.

    Raises:
        InputError: There is no such folder, and the name is none of the hub.
        HubError: The hub cannot be reached, or has no such model.
        BundleError: The model is of another kind, a file is missing or damaged, or the bundle cannot be written.
    """
    output = Path(output)
    require_bundle_folder(output)
    folder, name = Path(source), HubName.parse(source)
    if folder.is_dir():
        return convert_model(
            folder,
            output,
            name=folder.name,
            sampling=sampling,
            weights=weights,
            merge_tokens=merge_tokens,
            progress=say,
        )
    if name is None:
        raise InputError(
            f"there is no folder {source}, and it is no name on the hub such as openai/clip-vit-base-patch32: give one "
            "of both"
        )
    model = look_up(name)
    with tempfile.TemporaryDirectory(prefix="hbi-export-") as temporary:
        download(model, temporary, [file for file in model.files if file.is_description])
        check_kind(temporary)
        say(f"downloading {name}: {model.size_bytes / 1e6:.0f} MB")
        download(model, temporary, model.files)
        return convert_model(
            temporary,
            output,
            name=name.model,
            origin=name.model,
            revision=model.commit,
            sampling=sampling,
            weights=weights,
            merge_tokens=merge_tokens,
            progress=say,
        )
