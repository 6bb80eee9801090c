"""How a frame of any size passes through a net that wants multiples of its stride, and comes back at its own
size.

Model: the frame is padded at the bottom and the right by repeating its edge, and the scores are cropped.
`head` is handed features only, so a padded frame's features carry its size along: one more map, all zero, of
the frame's own rows and columns, whose values are never read. Warping that map changes nothing, a frame that
needs no padding has none, and `head` stays a pure function of its argument.

Shape suffixes: B batch, H W frame rows and columns; "size" is always (rows, columns).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vidseg_core.models.protocol import Features, SegmenterError


def check_frames(frames_B3HW: torch.Tensor) -> None:
    """Raise `SegmenterError` unless this is a float RGB batch, channels first."""
    shape = tuple(frames_B3HW.shape)
    if len(shape) != 4 or shape[1] != 3:
        raise SegmenterError(f"a segmenter takes frames of shape (B, 3, H, W), not {shape}")
    if not frames_B3HW.is_floating_point():
        raise SegmenterError(f"a segmenter takes float RGB in 0..1, not {frames_B3HW.dtype}: divide by 255")


def padded_size(size: tuple[int, int], multiple: int, least: int = 0) -> tuple[int, int]:
    """The smallest (rows, columns) that hold `size`, are at least `least` and divide by `multiple`."""
    rows, columns = (max(-(-side // multiple) * multiple, least) for side in size)
    return rows, columns


def pad_to_multiple(frames_B3HW: torch.Tensor, multiple: int, least: int = 0) -> torch.Tensor:
    """Repeat the bottom row and the right column until both sides divide by `multiple` and are `least` or
    more; the frames themselves if they do. A flow of two padded pictures, cropped, is the flow of the two.
    """
    size = (frames_B3HW.shape[2], frames_B3HW.shape[3])
    rows, columns = padded_size(size, multiple, least)
    if (rows, columns) == size:
        return frames_B3HW
    return F.pad(frames_B3HW, (0, columns - size[1], 0, rows - size[0]), mode="replicate")


def attach_size(maps: tuple[torch.Tensor, ...], size: tuple[int, int], multiple: int) -> Features:
    """Features as callers see them: one tensor or a tuple, with the size map last if the frame was padded."""
    if padded_size(size, multiple) != size:
        size_map = maps[0].new_zeros(()).expand(maps[0].shape[0], 1, *size)
        maps = (*maps, size_map)
    return maps[0] if len(maps) == 1 else maps


def detach_size(feats: Features, count: int, stride: int) -> tuple[tuple[torch.Tensor, ...], tuple[int, int]]:
    """The net's own `count` maps, and the frame's size (from the size map, or first map times `stride`)."""
    maps = (feats,) if isinstance(feats, torch.Tensor) else tuple(feats)
    if len(maps) not in (count, count + 1):
        raise SegmenterError(f"this segmenter's features are {count} map(s), not {len(maps)}")
    if len(maps) == count + 1:
        return maps[:-1], (maps[-1].shape[2], maps[-1].shape[3])
    return maps, (maps[0].shape[2] * stride, maps[0].shape[3] * stride)
