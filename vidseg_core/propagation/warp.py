"""Backward warping of label maps, gray pictures and feature maps by one flow.

A flow is estimated on a small picture and used at three resolutions: as it is for the photometric error,
grown to the working size for label maps (nearest), and at the resolution of the feature or score maps for
those (bilinear, as in DFF). Reading outside the key frame repeats its border.

Legend: H, W the size at hand; 2 = (x, y); labels and gray uint8, flow and maps float32.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as functional

from vidseg_core.grid import pixel_grid

WINDOW = 9
"""Side in pixels, at flow size, of the square over which errors are summed before they are compared."""

_MARGIN = 2
"""Flow pixels around what has moved that growing the flow reaches."""

_ONE_MAP: Any = None
"""cv2.remap's second map, which a two-channel first map makes needless."""


def resize_flow(flow_HW2: np.ndarray, height: int, width: int) -> np.ndarray:
    """The flow at another resolution, its vectors in pixels of that resolution."""
    flow_height, flow_width = flow_HW2.shape[:2]
    if (flow_height, flow_width) == (height, width):
        return flow_HW2
    scaled_HW2 = flow_HW2 * np.array([width / flow_width, height / flow_height], np.float32)
    shrinks = height <= flow_height and width <= flow_width
    return cv2.resize(
        scaled_HW2, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def sample_map(flow_HW2: np.ndarray, height: int, width: int) -> np.ndarray:
    """map_HW2 float32: where each pixel of a height x width picture is read in the key frame."""
    return cv2.add(resize_flow(flow_HW2, height, width), pixel_grid(height, width))


class VectorFlow(np.ndarray):
    """A flow_HW2 that is zero to the last bit wherever nothing has moved: labels there stay as they are."""


def warp_labels(labels_HW: np.ndarray, flow_HW2: np.ndarray) -> np.ndarray:
    """The key's label map as seen from the current frame (nearest; no new label can appear)."""
    if isinstance(flow_HW2, VectorFlow):
        return _warp_moved(labels_HW, flow_HW2.view(np.ndarray))
    return _read_labels(labels_HW, sample_map(flow_HW2, *labels_HW.shape))


def _read_labels(labels_HW: np.ndarray, map_HW2: np.ndarray) -> np.ndarray:
    return cv2.remap(
        labels_HW,
        map_HW2,
        _ONE_MAP,
        interpolation=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _warp_moved(labels_HW: np.ndarray, flow_hw2: np.ndarray) -> np.ndarray:
    """As `warp_labels`, but only the rectangle around all that has moved is read anew."""
    moved_hw = (flow_hw2[..., 0] != 0) | (flow_hw2[..., 1] != 0)
    rows, columns = (np.flatnonzero(np.any(moved_hw, axis=axis)) for axis in (1, 0))
    if not len(rows):
        return labels_HW
    (height, width), (flow_height, flow_width) = labels_HW.shape, flow_hw2.shape[:2]
    if height % flow_height or width % flow_width:  # then a part of the flow grows otherwise than the whole
        return _read_labels(labels_HW, sample_map(flow_hw2, height, width))
    top, bottom = max(0, rows[0] - _MARGIN), min(flow_height, rows[-1] + 1 + _MARGIN)
    left, right = max(0, columns[0] - _MARGIN), min(flow_width, columns[-1] + 1 + _MARGIN)
    down, across = height // flow_height, width // flow_width
    part = slice(top * down, bottom * down), slice(left * across, right * across)
    grown_HW2 = resize_flow(flow_hw2[top:bottom, left:right], (bottom - top) * down, (right - left) * across)
    moved_HW = labels_HW.copy()
    moved_HW[part] = _read_labels(labels_HW, cv2.add(grown_HW2, pixel_grid(height, width)[part]))
    return moved_HW


def warp_picture(picture: np.ndarray, flow_HW2: np.ndarray) -> np.ndarray:
    """The key's picture (HW or HW3 uint8, the size of the flow) as seen from the current frame (bilinear)."""
    return read_at(picture, cv2.add(flow_HW2, pixel_grid(*flow_HW2.shape[:2])))


def warp_flow(flow_HW2: np.ndarray, by_HW2: np.ndarray) -> np.ndarray:
    """One flow read where another points (bilinear): the second half of two motions put together."""
    return read_at(flow_HW2, cv2.add(by_HW2, pixel_grid(by_HW2.shape[0], by_HW2.shape[1])))


def read_at(values: np.ndarray, map_HW2: np.ndarray) -> np.ndarray:
    """What lies where the map's (x, y) point (bilinear)."""
    return cv2.remap(
        values, map_HW2, _ONE_MAP, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def warp_error(current: np.ndarray, key: np.ndarray, flow_HW2: np.ndarray | None) -> np.ndarray:
    """error (shape of the pictures, uint8 gray levels): |current - warped key|; no flow means no motion."""
    return cv2.absdiff(current, key if flow_HW2 is None else warp_picture(key, flow_HW2))


def error_sums(error: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """sums_HW float32: the error summed over the window around each pixel (border mirrored) and over colours.

    Sums of uint8 are exact integers: no machine or thread count rounds them differently.
    """
    sums = cv2.boxFilter(error, cv2.CV_32F, (window, window), normalize=False)
    return sums if sums.ndim == 2 else cv2.transform(sums, np.ones((1, 3), np.float32))


def warp_maps(maps_CHW: torch.Tensor, flow_HW2: np.ndarray) -> torch.Tensor:
    """Feature or score maps of the key as seen from the current frame, bilinear at their own resolution.

    The spatial warping of DFF and DVSNet section 3.1; `scale_field` has DFF's second half. Runs on the device
    of the maps.
    """
    height, width = maps_CHW.shape[-2:]
    map_HW2 = torch.from_numpy(sample_map(flow_HW2, height, width)).to(maps_CHW.device, torch.float32)
    size_2 = torch.tensor([width, height], dtype=torch.float32, device=maps_CHW.device)
    grid_HW2 = (map_HW2 * 2.0 + 1.0) / size_2 - 1.0
    warped_BCHW = functional.grid_sample(
        maps_CHW[None].float(), grid_HW2[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return warped_BCHW[0].to(maps_CHW.dtype)
