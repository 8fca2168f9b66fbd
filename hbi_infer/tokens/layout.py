"""Tokens of clips packed for keeping: unit tokens in half precision, one record of fixed size for each clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.levels import Levels, LevelTokens

PackedTokens = npt.NDArray[np.void]
"""(B,) records of `TokenLayout.dtype`, one for each clip."""


@dataclass(frozen=True)
class TokenLayout:
    """The places of each level's tokens in a packed record.

    Attributes:
        levels: Each level's name and its number V of video tokens, in the bundle's order.
        width: D.
        merged: The levels that keep the `slots` of the tokens below them.
    """

    levels: tuple[tuple[str, int], ...]
    width: int
    merged: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Number of tokens of a clip, all levels together."""
        return sum(num_tokens for _, num_tokens in self.levels)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Level name -> slice of its tokens among those of a record."""
        slices, start = {}, 0
        for name, num_tokens in self.levels:
            slices[name] = slice(start, start + num_tokens)
            start += num_tokens
        return slices

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """Type of a record: unit `tokens` (sum V, D) float16; their `lengths` and `weights` (sum V,) float32 each.

        Each merged level has `NAME_slots` (M,) int16 besides.
        """
        num_tokens = self.num_tokens
        below = {name: below for (_, below), (name, _) in pairwise(self.levels)}
        return np.dtype(
            [
                ("tokens", "<f2", (num_tokens, self.width)),
                ("lengths", "<f4", (num_tokens,)),
                ("weights", "<f4", (num_tokens,)),
                *((f"{name}_slots", "<i2", (below[name],)) for name in self.merged),
            ]
        )

    def pack(self, levels: Levels) -> PackedTokens:
        """Packs the tokens of B clips into records (B,), lengths beside unit tokens, so that nothing overflows.

        Raises:
            ValueError: The levels are not those of this layout.
        """
        given = tuple((name, level.tokens.shape[1]) for name, level in levels.items())
        widths = {level.tokens.shape[2] for level in levels.values()}
        if given != self.levels or widths != {self.width}:
            raise ValueError(f"levels {given} of widths {widths}; expected {self.levels} of width {self.width}")
        tokens = np.concatenate([level.tokens for level in levels.values()], axis=1).astype(np.float32, copy=False)
        records = np.empty(len(tokens), self.dtype)
        records["weights"] = np.concatenate([level.weights for level in levels.values()], axis=1)
        with np.errstate(invalid="ignore", over="ignore"):  # `is_finite` tells
            lengths = np.sqrt(np.einsum("bnd,bnd->bn", tokens, tokens))
            records["tokens"] = tokens / np.maximum(lengths, np.float32(1e-12))[..., None]
        records["lengths"] = lengths
        for name in self.merged:
            records[f"{name}_slots"] = levels[name].slots
        return records

    def unpack(self, records: PackedTokens) -> dict[str, LevelTokens]:
        """Unpacks records (B,) into the levels that they were packed from, float32 with half precision."""
        tokens = records["tokens"].astype(np.float32) * records["lengths"][..., None]
        return {
            name: LevelTokens(
                tokens[:, part],
                records["weights"][:, part],
                records[f"{name}_slots"] if name in self.merged else None,
            )
            for name, part in self.slices.items()
        }


def is_finite(records: PackedTokens) -> bool:
    """Returns whether all lengths and weights of records (B,) are finite; a token that is not has such a length."""
    return bool(np.isfinite(records["lengths"]).all() and np.isfinite(records["weights"]).all())


def widen(half: npt.NDArray[np.float16], out: npt.NDArray[np.float32]) -> None:
    """Writes finite float16 values (N, D) into a float32 array (N, D), 2 to 3 times as fast as NumPy's cast.

    Shifting the 16 bits left by 13 puts the fraction and the exponent where float32 has them. The sign arrives at its
    place too (the shift is of a sign-extended number), with copies of itself between, which the mask takes away.
    The exponent's bias is then short by 112, which a multiplication mends; it is exact, subnormal numbers included.
    """
    bits = out.view(np.int32)
    np.left_shift(half.view(np.int16), 13, out=bits, dtype=np.int32)
    np.bitwise_and(bits, _SIGN_EXPONENT_FRACTION, out=bits)
    np.multiply(out, _BIAS, out=out)


_SIGN_EXPONENT_FRACTION = np.array(0x8FFFE000, np.uint32).view(np.int32)[()]
_BIAS = np.float32(2.0**112)
