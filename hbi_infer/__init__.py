"""Search, question and caption folders of videos with Hierarchical Banzhaf Interaction.

>>> from hbi_infer import HBI
>>> HBI.load().index("videos").search("a red circle moves left")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbi_infer.api import HBI as HBI
    from hbi_infer.api import Index as Index
    from hbi_infer.options import Answering as Answering
    from hbi_infer.options import Decoding as Decoding
    from hbi_infer.options import Explaining as Explaining
    from hbi_infer.options import Filter as Filter
    from hbi_infer.options import Finding as Finding
    from hbi_infer.options import Searching as Searching

__version__ = "0.1.0"

_HOMES = {
    "HBI": "api",
    "Index": "api",
    "Answering": "options",
    "Decoding": "options",
    "Explaining": "options",
    "Filter": "options",
    "Finding": "options",
    "Searching": "options",
}


def __getattr__(name: str) -> Any:
    """Returns a public name; it is imported when first asked for, so that `import hbi_infer` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
