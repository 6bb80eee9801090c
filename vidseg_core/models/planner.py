"""What a planner has learned: the loss of a frame under a key, and of a frame between two keys.

Model: numbers of a pair (key, frame) are taken in with sign(x) log(1 + |x|), standardised and added up with
weights that change with the distance: the expected loss, in [0, 1]. Four more weights make the two-sided loss
of an interval from the one-sided losses of both of its keys (`scheduling.lookahead_values`). Linear, because
clips are few: nets with a hidden layer fitted the training clips better and unseen ones worse.

On disk: one `.safetensors` file, its facts as JSON under `vidseg.planner`. One lies in the package: where a
file is asked for, its name `tiny-planner` does as well (card: `bundled/tiny-planner.md`).

Legend: P features, Q = 2 P + 1 inputs (`inputs_of`); everything float64.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidseg_core.models.policy_trunk import PolicyError

METADATA = "vidseg.planner"
BUNDLED_PLANNER = "tiny-planner"
VERSION = 2
RULES = 3
"""Raised whenever the same file plans other keys than before: a run is not continued under other rules."""


_WITHOUT_TWO = (
    " (build-episodes --two_sided_stride makes the tables that train-planner finds them in); use "
    "--propagation.sides one, or"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PricePoint:
    """A price of a key and what came of it on clips that the model had not seen."""

    target: float
    """Average key interval that was asked for, frames."""
    sides: str
    """one or two."""
    threshold: float
    """The price: total quality (mIoU times frames) that a key must add."""
    aki: float
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerFacts:
    """What a file says of its model."""

    feature_names: tuple[str, ...]
    stride: int
    """Every so many frames after the last key one may be a key."""
    window: int
    """Frames that are looked ahead."""
    fingerprint: Mapping[str, str]
    """What the tables were made with."""
    reach: int = 0
    """The longest interval that was learned, frames; 0: the window."""
    tables: str = ""
    """Digest of the tables that it learned from."""
    strength: float = 0.0
    """Ridge penalty that did best on clips left out."""
    operating_points: tuple[PricePoint, ...] = field(default=())

    @property
    def longest(self) -> int:
        """The longest interval that is planned, frames."""
        return self.reach or self.window

    def price_at(self, aki: float, two_sided: bool) -> float:
        """The price whose measured interval is nearest to `aki`; `PolicyError` if none was measured."""
        sides = "two" if two_sided else "one"
        points = [point for point in self.operating_points if point.sides == sides]
        if not points:
            raise PolicyError(
                f"this planner has no operating points for {sides}-sided propagation"
                f"{_WITHOUT_TWO if two_sided else ';'} give a threshold"
            )
        return min(points, key=lambda p: abs(p.aki / aki - 1) + abs(p.target / aki - 1)).threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerModel:
    """The weights."""

    centre_Q: np.ndarray
    scale_Q: np.ndarray
    weight_Q1: np.ndarray
    """[Q + 1], the last one for the constant."""
    two_4: np.ndarray
    """For `lookahead_values.SIDES_INPUTS` and the constant; all zero where nothing two-sided was learned."""

    def loss(self, inputs_JEQ: np.ndarray) -> np.ndarray:
        """float64 [J, E + 1] in [0, 1]; NaN where the inputs are."""
        scaled = (inputs_JEQ - self.centre_Q) * self.scale_Q
        return np.clip(scaled @ self.weight_Q1[:-1] + self.weight_Q1[-1], 0.0, 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.ascontiguousarray(getattr(self, name), np.float64) for name in _ARRAYS}


_ARRAYS = ("centre_Q", "scale_Q", "weight_Q1", "two_4")


def inputs_of(features_JEP: np.ndarray) -> np.ndarray:
    """float64 [J, E + 1, Q]: features with long tails taken in; the same times the logarithm of the distance
    e, centred; and its square."""
    wide = features_JEP.astype(np.float64)
    taken = np.sign(wide) * np.log1p(np.abs(wide))
    distance_E = np.log(np.maximum(np.arange(taken.shape[1]), 1.0)) - MIDDLE
    distance_JE1 = np.broadcast_to(distance_E[None, :, None], (*taken.shape[:2], 1))
    return np.concatenate([taken, taken * distance_JE1, distance_JE1**2], axis=2)


MIDDLE = 1.8
"""Logarithm of the distance, in strides, at which weights do not change: 6 strides."""


def planner_file(name: str | Path) -> Path:
    """Where a planner lies: `tiny-planner`, or the path itself."""
    if str(name) == BUNDLED_PLANNER:
        return Path(__file__).parent / "bundled" / f"{BUNDLED_PLANNER}.safetensors"
    return Path(name)


def planner_bytes(model: PlannerModel, facts: PlannerFacts) -> bytes:
    """The file; equal models and facts have equal bytes."""
    from safetensors.numpy import save

    said = {name: value for name, value in asdict(facts).items() if (name, value) != ("reach", 0)}
    return save(model.arrays(), {METADATA: json.dumps({"version": VERSION} | said, sort_keys=True)})


def read_planner(path: str | Path) -> tuple[PlannerModel, PlannerFacts]:
    """The model and its facts of a file or of `tiny-planner`; `PolicyError` for any file that is not such a
    one."""
    from safetensors import SafetensorError, safe_open

    path = planner_file(path)
    if not path.is_file():
        raise PolicyError(f"planner file {path} does not exist")
    try:
        with safe_open(path, framework="np") as file:
            said = (file.metadata() or {}).get(METADATA)
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"planner file {path} is not a readable safetensors file: {error}") from error
    if said is None:
        raise PolicyError(f"{path} holds no planner; train-planner writes such files")
    facts = _facts(path, said)
    inputs = 2 * len(facts.feature_names) + 1
    sizes = (inputs, inputs, inputs + 1, 4)
    fits = set(arrays) == set(_ARRAYS) and all(
        arrays[name].shape == (size,) and np.isfinite(arrays[name]).all()
        for name, size in zip(_ARRAYS, sizes, strict=True)
    )
    if not fits:
        raise PolicyError(
            f"{path}: the weights are not numbers, or do not fit its {len(facts.feature_names)} features"
        )
    return PlannerModel(**arrays), facts


def is_planner(path: str | Path) -> bool:
    """Does this file come from train-planner?"""
    try:
        read_planner(path)
    except PolicyError:
        return False
    return True


def planner_digest(path: str | Path) -> str:
    """Hex SHA-256 of what decides: rules, weights, inputs and, through its facts, the default price."""
    model, facts = read_planner(path)
    return hashlib.sha256(b"rules %d\n" % RULES + planner_bytes(model, facts)).hexdigest()


def _facts(path: Path, said: str) -> PlannerFacts:
    try:
        values: dict[str, Any] = json.loads(said)
        if values.pop("version") != VERSION:
            raise PolicyError(f"{path} was written by another version of vidseg; train it again")
        points = tuple(PricePoint(**point) for point in values.pop("operating_points"))
        values["feature_names"] = tuple(values["feature_names"])
        return PlannerFacts(operating_points=points, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"{path}: its description is damaged ({error})") from error
