"""A bundle's file that tells clips like those of the training from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hbi_infer.errors import BundleError
from hbi_infer.tokens.familiarity import Familiarity

if TYPE_CHECKING:
    from hbi_infer.model.bundle import Bundle


def familiarity_of(bundle: Bundle) -> Familiarity | None:
    """Reads a bundle's file; None if it has none, and no clip is called unfamiliar.

    Raises:
        BundleError: The file is not the one that was exported, or makes no sense.
    """
    if bundle.manifest.familiarity is None:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = bundle.familiarity_bytes()
    where = f"the familiarity of {bundle.path}"
    try:
        arrays = load(content)
        direction, limit = arrays["direction"].astype(np.float32), arrays["limit"].astype(np.float64)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{where} cannot be read ({error!r:.120}): export the bundle again") from error
    if direction.shape != (bundle.manifest.width,) or limit.shape != (1,):
        raise BundleError(f"{where} has the shapes {direction.shape} and {limit.shape}: export the bundle again")
    if not (np.isfinite(direction).all() and np.isfinite(limit).all()):
        raise BundleError(f"{where} has numbers that are not finite: export the bundle again")
    return Familiarity(direction, float(limit[0]))


def familiarity_file(familiarity: Familiarity) -> bytes:
    """Returns the content of the file: safetensors."""
    from safetensors.numpy import save

    return save({"direction": familiarity.direction, "limit": np.array([familiarity.limit], np.float64)})
