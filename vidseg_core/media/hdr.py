"""High dynamic range (PQ, HLG) as a net that has learned from ordinary video expects it: BT.709, 8 bit.

Model: the picture's code values give light in units of diffuse white, which is 203 cd/m2 (ITU-R BT.2408): for
PQ by SMPTE ST 2084, for HLG by ITU-R BT.2100 on a screen of 1000 cd/m2. Primaries of BT.2020 become those of
BT.709, what they cannot show is cut off. Light up to `KNEE` stays as it is; what is brighter approaches 1:
`KNEE + (1 - KNEE) * (1 - exp(-(x - KNEE) / (1 - KNEE)))`. Code values are those of a screen with gamma 2.4
(BT.1886). So ordinary video that somebody put into an HDR file comes out as it went in, but for highlights.

Invariant: a pixel depends on that pixel alone. Numpy's elementary operations and tables only, so the same on
every machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

TRANSFERS = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
WHITE = 203.0
"""Diffuse white, cd/m2."""
KNEE = 0.8
_BRIGHTEST = 10_000.0 / WHITE
_SCREEN = 1000.0
"""Brightest light of the screen that HLG is meant for, cd/m2; its gamma is 1.2."""
_FULL = 65283
"""What swscale makes of the highest code value of YUV, in 16 bits."""
_STEPS = 1 << 14
_BT709_OF_BT2020 = (
    (1.660491, -0.587641, -0.072850),
    (-0.124550, 1.132900, -0.008349),
    (-0.018151, -0.100579, 1.118730),
)
_LUMA_BT2020 = (0.2627, 0.6780, 0.0593)


def transfer_of(frame: VideoFrame) -> str:
    """`pq`, `hlg`, or nothing for ordinary video."""
    return TRANSFERS.get(frame.color_trc, "")  # type: ignore[call-overload]


def to_bt709(codes_HW3: np.ndarray, transfer: str, *, wide: bool) -> np.ndarray:
    """uint8 [H, W, 3] of uint16 RGB code values of full range. `wide`: the primaries are those of BT.2020."""
    light = [_light(transfer)[codes_HW3[..., channel]] for channel in range(3)]
    if transfer == "hlg":
        luma_HW = _weighted(light, _LUMA_BT2020)
        system_HW = _hlg_system()[(luma_HW * 65535 + 0.5).astype(np.uint16)]
        light = [channel_HW * system_HW for channel_HW in light]
    if wide:
        light = [_weighted(light, weights) for weights in _BT709_OF_BT2020]
    out_HW3 = np.empty(codes_HW3.shape, np.uint8)
    for channel, light_HW in enumerate(light):
        places_HW = np.sqrt(np.clip(light_HW, 0, _BRIGHTEST) / np.float32(_BRIGHTEST)) * np.float32(_STEPS)
        out_HW3[..., channel] = _code_values()[(places_HW + np.float32(0.5)).astype(np.uint16)]
    return out_HW3


def has_wide_primaries(frame: VideoFrame) -> bool:
    """Whether its primaries are BT.2020's, also where it does not say: HDR hardly ever has others."""
    return frame.color_primaries in (ColorPrimaries.BT2020, ColorPrimaries.UNSPECIFIED, 0)


def with_matrix(frame: VideoFrame) -> VideoFrame:
    """The frame; one that names no matrix of its colour differences gets that of BT.2020."""
    if frame.colorspace in (0, 2):
        frame.colorspace = Colorspace.BT2020
    return frame


def _weighted(light: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    red, green, blue = (np.float32(weight) for weight in weights)
    return red * light[0] + green * light[1] + blue * light[2]


@lru_cache(maxsize=2)
def _light(transfer: str) -> np.ndarray:
    """float32[65536]: light of each code value; of HLG that of the scene, 0..1."""
    codes = np.minimum(np.arange(65536) / _FULL, 1)
    if transfer == "pq":
        power = codes ** (1 / 78.84375)
        ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        return (10_000 / WHITE * ratio ** (1 / 0.1593017578125)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12).astype(np.float32)


@lru_cache(maxsize=1)
def _hlg_system() -> np.ndarray:
    """float32[65536]: what the screen makes of a scene's light, by its luma."""
    luma = np.maximum(np.arange(65536), 0.5) / 65535
    return (_SCREEN / WHITE * luma**0.2).astype(np.float32)


@lru_cache(maxsize=1)
def _code_values() -> np.ndarray:
    """uint8[_STEPS + 1]: code values of light `_BRIGHTEST * (place / _STEPS) ** 2`."""
    light = _BRIGHTEST * (np.arange(_STEPS + 1) / _STEPS) ** 2
    bent = KNEE + (1 - KNEE) * (1 - np.exp(-np.maximum(light - KNEE, 0) / (1 - KNEE)))
    return np.round(255 * np.minimum(light, bent) ** (1 / 2.4)).astype(np.uint8)
