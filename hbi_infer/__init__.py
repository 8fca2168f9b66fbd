"""Search, question and caption folders of videos with Hierarchical Banzhaf Interaction.

>>> from hbi_infer import HBI
>>> HBI.load().index("videos").search("a red circle moves left")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbi_infer.model.token_model import HBI as HBI

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the model when it is first asked for, so that `import hbi_infer` and the command line's help are quick."""
    if name == "HBI":
        from hbi_infer.model.token_model import HBI

        return HBI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
