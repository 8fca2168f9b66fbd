"""Checksums of rows and seals of items: stable, and changed by every changed bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.index.checksums import SealedType, row_checksum
from tests.builders.stored_videos import LAYOUT, video

TYPES: dict[str, npt.DTypeLike] = {"records": LAYOUT.dtype, "vectors": ("<f2", (8,)), "six bytes": ("<i2", (3,))}


def items_of(dtype: npt.DTypeLike, number: int) -> npt.NDArray[np.void]:
    size = np.dtype(dtype).itemsize
    content = np.random.default_rng(0).integers(0, 256, number * size, dtype=np.uint8).tobytes()
    return np.frombuffer(content, np.dtype([("item", dtype)]))["item"]


@pytest.mark.parametrize("name", TYPES)
def test_sealed_items_come_back_and_every_changed_bit_is_told(name: str) -> None:
    items, ids = items_of(TYPES[name], 2), np.array([3, 2**40])
    seals = SealedType(TYPES[name])
    content = b"".join(seals.seal(ids, items))
    assert seals.unseal(ids, content).tobytes() == items.tobytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match="changed"):
            seals.unseal(ids, bytes(changed))


def test_items_of_other_ids_or_of_another_number_are_told() -> None:
    seals, ids = SealedType(LAYOUT.dtype), np.array([1, 2])
    content = b"".join(seals.seal(ids, video("a").tokens))
    for other in ([2, 1], [1, 3], [1], [1, 2, 3], []):
        with pytest.raises(ValueError, match="changed"):
            seals.unseal(np.array(other, np.int64), content)
    with pytest.raises(ValueError, match="buffer size"):
        seals.unseal(ids, content[:-1])
    assert len(seals.unseal(ids[:0], b"")) == 0


def test_seals_and_checksums_stay_the_same_for_ever() -> None:
    """An index that was written once must be readable by every later version."""
    [sealed] = SealedType(("<i2", (3,))).seal(np.array([7]), np.array([[1, 2, 3]], "<i2"))
    assert sealed.hex() == "010002000300000080b41c18117e8488"
    assert row_checksum((1, b"\xff.mp4", -5, None, 2.5), 3) == 2273724258


def test_a_row_is_told_from_similar_ones() -> None:
    rows = [(1, 2), (2, 1), (1, 2.0), (1, None), (12,), (1, b"2"), (1, 2, None)]
    assert len({row_checksum(row) for row in rows} | {row_checksum(rows[0], 1)}) == len(rows) + 1
