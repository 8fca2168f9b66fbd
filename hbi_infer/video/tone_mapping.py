"""Pictures of high dynamic range, or of wide-gamut primaries, as a standard display shows them (sRGB).

PQ (SMPTE ST 2084) gives the light of a display itself. HLG (ARIB STD-B67) gives that of a scene; ITU-R BT.2100 shows it
on a display of 1000 cd/m2 with a system gamma of 1.2. Light becomes sRGB on a display whose white has 203 cd/m2, the
reference white of ITU-R BT.2408, by the EETF of ITU-R BT.2390 for a source of up to 1000 cd/m2: it leaves what is below
89 cd/m2 as it is and compresses what is brighter; 1000 cd/m2 and more become white. The largest of the three components
decides, which keeps hues. Colours outside of BT.709's primaries are clipped.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Transfer = Literal["pq", "hlg", "sdr"]
Primaries = Literal["bt709", "bt2020", "p3"]
Floats: TypeAlias = NDArray[np.floating]

_WHITE_NITS, _PEAK_NITS, _MOST_NITS = 203.0, 1000.0, 10_000.0
_SDR_GAMMA = 2.4  # ITU-R BT.1886
_PQ_M1, _PQ_M2, _PQ_C1, _PQ_C2, _PQ_C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_HLG_A, _HLG_B, _HLG_C, _HLG_GAMMA = 0.17883277, 0.28466892, 0.55991073, 1.2
_BT2020_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
# From linear light to linear light; the white of all is D65.
_TO_BT709 = {
    "bt709": np.eye(3, dtype=np.float32),
    "bt2020": np.array(
        [[1.660491, -0.587641, -0.07285], [-0.12455, 1.1329, -0.008349], [-0.018151, -0.100579, 1.11873]], np.float32
    ),
    "p3": np.array(
        [[1.22494, -0.22494, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]], np.float32
    ),
}


def to_srgb(codes: NDArray[np.uint16], transfer: Transfer, primaries: Primaries) -> NDArray[np.uint8]:
    """Converts RGB of another transfer curve or other primaries.

    Args:
        codes: (H, W, 3) uint16, R'G'B' of the full range.
        transfer: Curve from light to codes.
        primaries: Primaries of the codes.

    Returns:
        (H, W, 3) uint8, sRGB. Greys of "sdr" stay as they are.
    """
    light = _light_of_codes(transfer)[codes]
    if transfer == "hlg":
        light *= (_PEAK_NITS / _WHITE_NITS) * (light @ _BT2020_LUMINANCE)[..., None] ** np.float32(_HLG_GAMMA - 1)
    light = np.maximum(light @ _TO_BT709[primaries].T, 0)
    if transfer == "sdr":
        light = np.minimum(light, 1)
    else:
        brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
        gains = _tone_gains()[np.minimum(brightest * (65535 * _WHITE_NITS / _MOST_NITS), 65535).astype(np.uint16)]
        light = np.minimum(light * gains[..., None], 1)
    return _codes_of_light(transfer)[(light * 65535 + 0.5).astype(np.uint16)]


@cache
def _light_of_codes(transfer: Transfer) -> NDArray[np.float32]:
    """Returns light for each 16-bit code, (65536,): 1 is the white of the standard display, or of the scene in HLG."""
    codes = np.arange(65536) / 65535
    if transfer == "pq":
        light = _pq_nits(codes) / _WHITE_NITS
    elif transfer == "hlg":
        light = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - _HLG_C) / _HLG_A) + _HLG_B) / 12)
    else:
        light = codes**_SDR_GAMMA
    return light.astype(np.float32)


@cache
def _codes_of_light(transfer: Transfer) -> NDArray[np.uint8]:
    """Returns the standard display's codes for 65536 steps of light from black to white."""
    light = np.arange(65536) / 65535
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    codes = light ** (1 / _SDR_GAMMA) if transfer == "sdr" else srgb
    return np.round(255 * codes).astype(np.uint8)


@cache
def _tone_gains() -> NDArray[np.float32]:
    """Returns the factor for each of 65536 steps of light up to the brightest of PQ: ITU-R BT.2390, "EETF"."""
    nits = np.maximum(np.arange(65536) / 65535 * _MOST_NITS, 1e-3)
    peak = _pq_code(np.array(_PEAK_NITS))
    source, white = np.minimum(_pq_code(nits) / peak, 1), _pq_code(np.array(_WHITE_NITS)) / peak
    knee = 1.5 * white - 0.5
    t = np.maximum(source - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * white
    return np.where(source < knee, 1, _pq_nits(spline * peak) / nits).astype(np.float32)


def _pq_nits(codes: Floats) -> Floats:
    """Returns the light in cd/m2 of PQ codes from 0 to 1, of any shape."""
    power = codes ** (1 / _PQ_M2)
    linear: Floats = (np.maximum(power - _PQ_C1, 0) / (_PQ_C2 - _PQ_C3 * power)) ** (1 / _PQ_M1)
    return 10_000 * linear


def _pq_code(nits: Floats) -> Floats:
    """Returns the PQ codes, from 0 to 1, of light in cd/m2, of any shape."""
    power = (nits / 10_000) ** _PQ_M1
    return ((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)) ** _PQ_M2
