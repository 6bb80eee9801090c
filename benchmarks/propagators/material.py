"""What the propagators learn from and are judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

FRAMES = 120
"""At most so many of a clip."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Data sets, a net for them, and the sizes to learn at."""

    learn: str
    """The data set of the clips to learn from, and of those judged, which are its last."""
    judge: str = ""
    """Another data set, of which all clips are judged."""
    split: str = "all"
    """Of that one."""
    net: str = ""
    """Of the package; empty: trained here, from `pictures`."""
    pictures: tuple[str, str] = ("", "")
    """Data set and split that the net learns from; the clips judged are left out."""
    net_steps: int = 500
    known: bool = False
    """The net, and it alone, learns from the clips judged, too: it stands for one that knows such footage."""
    size: int
    """Longest side of clips, pixels."""
    crop: tuple[int, int]
    """Rows and columns of what a step sees."""
    held: int = 0
    """Clips, from the end, that are judged and not learned from."""


DAVIS = Material(
    learn="davis:{root}/davis2016",
    pictures=("davis:{root}/davis2016", "all"),
    size=320,
    crop=(160, 256),
    held=3,
)
MATERIAL: Mapping[str, Material] = {
    "scenes": Material(
        learn="scenes:videos=20,frames=40,height=128,width=192",
        net="tiny-scenes",
        size=192,
        crop=(128, 192),
        held=12,
    ),
    "face": Material(learn="face:{root}/face", net="tiny-face", size=512, crop=(256, 192), held=3),
    "davis": DAVIS,
    "davis_known": replace(DAVIS, known=True),
    "camvid": Material(
        learn="davis:{root}/davis2016",
        judge="camvid:{root}/camvid",
        split="val",
        pictures=("camvid:{root}/camvid", "train"),
        size=320,
        crop=(160, 256),
    ),
}
