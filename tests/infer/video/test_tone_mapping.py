"""Light of PQ and HLG on a standard display, against the standards' own formulas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hbi_infer.video.tone_mapping import Transfer, to_srgb
from tests.builders.coloured_frames import BT709_TO_BT2020, hdr_codes, hlg_codes, pq_codes

NUMBERS: dict[Transfer, int] = {"pq": 16, "hlg": 18}


def picture(colours: NDArray[np.float64]) -> NDArray[np.uint16]:
    """One row (1, N, 3) of colours (N, 3) from 0 to 1."""
    return (colours * 65535).round().astype(np.uint16)[None]


def srgb(light: float) -> float:
    return 255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


def eetf(nits: float) -> float:
    """ITU-R BT.2390, steps 1 to 5 of its section on mapping display light, from 1000 to 203 cd/m2."""
    peak = float(pq_codes(np.array(1000.0)))
    e1, max_lum = float(pq_codes(np.array(min(nits, 1000.0)))) / peak, float(pq_codes(np.array(203.0))) / peak
    knee = 1.5 * max_lum - 0.5
    if e1 < knee:
        return nits
    t = (e1 - knee) / (1 - knee)
    e2 = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * max_lum
    grid = np.geomspace(1e-3, 1e4, 200_000)
    return float(np.interp(e2 * peak, pq_codes(grid), grid))


@pytest.mark.parametrize("transfer", NUMBERS)
def test_colours_below_the_knee_stay(transfer: Transfer) -> None:
    """White of the standard display is 203 cd/m2, the knee lies at 89 cd/m2: code 174 of grey."""
    colours = np.random.default_rng(0).integers(0, 165, (200, 3))
    codes = np.stack([hdr_codes(colour, NUMBERS[transfer]) for colour in colours])
    np.testing.assert_allclose(to_srgb(picture(codes), transfer, "bt2020")[0].astype(int), colours, atol=1)


@pytest.mark.parametrize("nits", [0, 0.1, 1, 20, 80, 100, 150, 203, 400, 700, 1000, 4000, 10_000])
def test_greys_of_pq(nits: float) -> None:
    code = pq_codes(np.full((1, 3), float(nits)))
    shown = to_srgb(picture(code), "pq", "bt2020")[0, 0].astype(int)
    np.testing.assert_allclose(shown, [srgb(min(eetf(nits) / 203, 1))] * 3, atol=1.01)


@pytest.mark.parametrize("nits", [1, 20, 80, 100, 203, 500, 1000])
def test_greys_of_hlg(nits: float) -> None:
    shown = to_srgb(picture(hlg_codes(np.full(3, float(nits)))[None]), "hlg", "bt2020")[0, 0].astype(int)
    np.testing.assert_allclose(shown, [srgb(min(eetf(nits) / 203, 1))] * 3, atol=1.01)


def test_white_is_reached_at_a_thousand_and_never_before() -> None:
    ramp = np.linspace(0, 1, 4096)[:, None].repeat(3, 1)
    grey = to_srgb(picture(ramp), "pq", "bt2020")[0, :, 0].astype(int)
    assert (np.diff(grey) >= 0).all()
    assert grey[0] == 0
    first_white = ramp[np.argmax(grey == 255), 0]
    assert 0.70 < first_white <= float(pq_codes(np.array(1000.0))) + 1e-3


def test_bright_colours_keep_their_hue() -> None:
    """A red of 600 cd/m2 is as red as one of 60: the parts of its components stay."""
    light = np.array([1.0, 0.25, 0.1])
    shown = [
        to_srgb(picture(pq_codes(nits * BT709_TO_BT2020 @ light)[None]), "pq", "bt2020")[0, 0] for nits in (60, 600)
    ]
    parts = [((np.asarray(colour) / 255 + 0.055) / 1.055) ** 2.4 for colour in shown]
    np.testing.assert_allclose(parts[1] / parts[1][0], light, atol=0.02)
    assert shown[1][0] > shown[0][0] + 50


def test_what_bt709_cannot_show_is_clipped() -> None:
    pure_green = pq_codes(np.array([[0.0, 60.0, 0.0]]))
    red, green, blue = to_srgb(picture(pure_green), "pq", "bt2020")[0, 0]
    assert (red, blue) == (0, 0)
    assert 140 < green < 170
    kept = to_srgb(picture(pure_green), "pq", "bt709")[0, 0]
    np.testing.assert_allclose(kept.astype(int), [0, srgb(60 / 203), 0], atol=1)


@pytest.mark.parametrize("primaries", ["bt709", "bt2020", "p3"])
def test_greys_of_standard_video_stay(primaries: str) -> None:
    codes = (np.arange(256) / 255)[:, None].repeat(3, 1)
    shown = to_srgb(picture(codes), "sdr", primaries)[0].astype(int)  # type: ignore[arg-type]
    np.testing.assert_allclose(shown, np.arange(256)[:, None].repeat(3, 1), atol=1)
