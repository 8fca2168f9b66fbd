"""Colours and numbers of a map: red above 0, blue below, nearly white at 0; distinct to the colour-blind too."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NONE = 247, 247, 247
MOST = 178, 24, 43
LEAST = 33, 102, 172
BLACK = "#18181b"
WHITE = "#ffffff"
MOST_DECIMALS = 6


@dataclass(frozen=True)
class HeatScale:
    """Scale from -limit to limit. Colours are written as in HTML, which Pillow and rich take too.

    >>> scale = HeatScale(0.06)
    >>> scale.colour(0.06), scale.number(0.0149), scale.number(-0.0001)
    ('#b2182b', '0.015', '0')
    """

    limit: float

    @classmethod
    def of(cls, values: npt.NDArray[np.floating[Any]]) -> HeatScale:
        """Returns the scale that reaches the value farthest from 0 in a map (T, V)."""
        return cls(float(abs(values).max(initial=0)))

    @property
    def decimals(self) -> int:
        """Number of decimals that show two digits of the limit."""
        return min(max(1 - floor(log10(self.limit)), 0), MOST_DECIMALS) if self.limit else 0

    def colour(self, value: float) -> str:
        """Returns the colour of a value."""
        return "#{:02x}{:02x}{:02x}".format(*self._red_green_blue(value))

    def ink(self, value: float) -> str:
        """Returns black or white, whichever can be read on the colour of a value."""
        red, green, blue = self._red_green_blue(value)
        return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE

    def number(self, value: float) -> str:
        """Returns a value as text, to the scale's decimals."""
        text = f"{value:.{self.decimals}f}"
        return text if float(text) else "0"

    def _red_green_blue(self, value: float) -> list[int]:
        share = min(abs(value) / self.limit, 1.0) if self.limit else 0.0
        end = MOST if value > 0 else LEAST
        return [round(none + share * (most - none)) for none, most in zip(NONE, end, strict=True)]
