"""The options of a generated scene; see `scenes` for what it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Motion = Literal["mixed", "still", "calm", "fast"]
MOTION_CYCLE: tuple[Motion, ...] = ("mixed", "still", "fast", "calm")


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """One clip. Equal configs give equal bytes on every machine."""

    height: int = 240
    """Rows of a frame, pixels, 32..4096."""
    width: int = 320
    """Columns of a frame, pixels, 32..4096."""
    frames: int = 150
    """Length in frames, 1..1,000,000."""
    fps: int = 25
    """Frames a second, 1..240. Speeds are per second, so a higher rate means smaller steps."""
    seed: int = 0
    """Everything random follows from it, 0..2**32-1."""
    shapes: int = 6
    """Moving labelled shapes in each shot, 0..64."""
    clutter: int = 4
    """Gray shapes that belong to the background, 0..64."""
    occluders: int = 1
    """Unlabelled pillars that shapes pass behind, 0..8."""
    motion: Motion = "mixed"
    """`still`: long rests, short calm moves. `calm`: slow all the time. `fast`: quick all the time. `mixed`:
    rests, calm stretches and bursts in turn, which is where an adaptive schedule has something to gain."""
    camera: float = 1.0
    """Strength of pan, zoom and shake, 0..2; 0 is a tripod."""
    cuts: int = 1
    """Hard cuts to another scene, 0..frames-1, spread over the clip."""
    lighting: float = 0.0
    """Strength of brightness and colour-cast changes, 0..1."""
    noise: int = 3
    """Sensor noise, standard deviation in gray levels, 0..32."""

    def __post_init__(self) -> None:
        _check_range("height", self.height, 32, 4096)
        _check_range("width", self.width, 32, 4096)
        _check_range("frames", self.frames, 1, 1_000_000)
        _check_range("fps", self.fps, 1, 240)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        _check_range("shapes", self.shapes, 0, 64)
        _check_range("clutter", self.clutter, 0, 64)
        _check_range("occluders", self.occluders, 0, 8)
        _check_range("camera", self.camera, 0, 2)
        _check_range("cuts", self.cuts, 0, self.frames - 1)
        _check_range("lighting", self.lighting, 0, 1)
        _check_range("noise", self.noise, 0, 32)
        if self.motion not in get_args(Motion):
            raise ValueError(f"motion must be one of {', '.join(get_args(Motion))}, not {self.motion!r}")


def corpus_configs(
    clips: int, frames: int, seed: int = 0, height: int = 240, width: int = 320, fps: int = 25
) -> dict[str, SceneConfig]:
    """Varied clips by name: they take turns in their kind of motion, in lighting (every second one changes)
    and in cuts (one or none). Equal arguments, equal clips. ValueError names what is out of range."""
    if clips < 1:
        raise ValueError(f"clips must be at least 1, not {clips}")
    configs = {}
    for number in range(clips):
        config = SceneConfig(
            height=height,
            width=width,
            frames=frames,
            fps=fps,
            seed=(seed * 1009 + number) % 2**32,
            motion=MOTION_CYCLE[number % len(MOTION_CYCLE)],
            cuts=max(0, min(frames - 1, 1 - number % 2)),
            lighting=0.6 * (number % 2),
        )
        configs[f"scene-{number:03d}-{config.motion}"] = config
    return configs


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{field} must be in {low}..{high}, not {value!r}")
