"""Options `--tta.*`: the net on several versions of a key frame."""

from __future__ import annotations

from dataclasses import dataclass

from vidseg_core.config.errors import check, check_positive


@dataclass(frozen=True, kw_only=True)
class TtaConfig:
    """Test-time augmentation: the net on several versions of a key frame, probabilities averaged."""

    scales: tuple[float, ...] = ()
    """sizes of the frame relative to the working size, such as 0.75 1 1.25; 0.1 to 4; none: 1 alone"""
    flip: bool = False
    """the mirror image too (not for classes that distinguish left from right)"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        for scale in self.scales:
            check_positive("--tta.scales", scale)
            check(0.1 <= scale <= 4, "--tta.scales", f"must be from 0.1 to 4, got {scale:g}")
        twice = len(set(self.scales)) < len(self.scales)
        check(not twice, "--tta.scales", f"names a scale twice: {' '.join(f'{s:g}' for s in self.scales)}")

    @property
    def on(self) -> bool:
        """Whether anything is asked for."""
        return self.flip or self.scales not in ((), (1.0,))

    @property
    def words(self) -> str:
        """What is asked for, after the name of a net."""
        scales = f" at scales {' '.join(f'{scale:g}' for scale in self.scales)}" if self.scales else ""
        return f"{scales}{' with flip' if self.flip else ''}"
