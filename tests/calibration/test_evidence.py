"""Promise: what a calibration says of a schedule is what `segment` reaches with it: the intervals that it
puts together are those of the full two-sided table, and a setting's keys are the engine's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.engine.toy import ConvNet
from tests.episodes.scenes import GivenKeys, engine_masks, records
from vidseg_core.calibration.evidence import Clip, intervals_of, two_sided_values
from vidseg_core.calibration.schedulers import families, keys_at
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.quality import Truth
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.episodes.walk import two_sided_total, with_features
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import PolicyFacts, policy_bytes
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.training.policy_loop import new_policy

HORIZON, FRAMES = 12, 26
CLASSES = 5


def builder(level: str = "labels", two_sided_stride: int = 0) -> TableBuilder:
    options = TableOptions(
        quality="fidelity",
        horizon=HORIZON,
        flow_size=48,
        min_frames=5,
        two_sided_stride=two_sided_stride,
    )
    return TableBuilder(
        options,
        net=ChunkedNet(ConvNet(), level=level, batch=1, device="cpu"),
        propagator=build_propagator("flow_warp", level=level),
        flow=DisFlow(),
        features=Features(("scores",)),
        classes=0,
    )


KEYS = np.array([0, 1, 4, 5, 13, 22])


def test_chosen_intervals_have_the_values_of_the_full_table() -> None:
    full = builder(two_sided_stride=1)
    seen = full.see(records(FRAMES))
    table = full.tabulate("clip", 0, seen)
    clip = Clip(table=table, two_sided=True, known={})
    other = np.array([0, 4, 13, 20])
    clip.known.update(two_sided_values(builder(), seen, clip.missing([KEYS, other])))
    assert clip.missing([KEYS, other]) == []
    for keys in (KEYS, other):
        assert clip.quality(keys) == pytest.approx(two_sided_total(table, keys) / FRAMES, abs=1e-6)


@pytest.mark.parametrize("level", ["labels", "scores", "features"])
def test_a_schedule_is_worth_what_the_engine_makes_of_it(level: str) -> None:
    made, clip_frames = builder(level), records(FRAMES)
    seen = made.see(clip_frames)
    clip = Clip(table=made.tabulate("clip", 0, seen), two_sided=True, known={})
    clip.known.update(two_sided_values(made, seen, intervals_of([KEYS])))
    masks, keys = engine_masks(
        clip_frames, GivenKeys(KEYS.tolist()), ConvNet(), sides="two", max_interval=HORIZON, level=level
    )
    assert keys == KEYS.tolist()
    classes = len(ConvNet().class_names)
    truths = [Truth(mask_HW, classes, "fidelity") for mask_HW in seen.masks]
    reached = [truth.quality(mask_HW) for truth, mask_HW in zip(truths, masks, strict=True)]
    assert clip.quality(KEYS) == pytest.approx(float(np.mean(reached)), abs=1e-6)


def test_an_interval_that_is_not_known_is_an_error_not_a_guess() -> None:
    made = builder()
    clip = Clip(table=made.build("clip", 0, records(FRAMES)), two_sided=True, known={})
    with pytest.raises(EpisodeError, match="has not been put together"):
        clip.quality(KEYS)


def test_points_fall_in_keys_and_their_settings_give_their_keys_again() -> None:
    tables = [builder().build(f"clip-{seed}", 0, records(FRAMES, seed=seed)) for seed in range(2)]
    for family in families(tables, ("fixed", "frame_difference", "warp_error"), max_interval=HORIZON):
        points = family.points((0.5, 0.25, 0.12))
        shares = [point.share for point in points]
        assert shares == sorted(shares, reverse=True) and len(points) >= 2
        for point in points:
            for table, keys in zip(tables, point.keys, strict=True):
                assert np.array_equal(keys_at(table, point.settings, HORIZON), keys)


@pytest.mark.parametrize(
    ("name", "role", "kind"),
    [
        ("policy", "policy", "light"),
        ("policy", "policy", "paced"),
        ("expected_loss", "decision", "light"),
        ("confidence_sum", "decision", "light"),
    ],
)
def test_a_trained_file_is_tried_at_thresholds_of_its_own(
    name: str, role: Literal["policy", "decision"], kind: str, tmp_path: Path
) -> None:
    tables = [builder().build(f"clip-{seed}", 0, records(FRAMES, seed=seed)) for seed in range(2)]
    known = join_tables([with_features(table, ("distance", "warp_error")) for table in tables])
    policy = new_policy(kind, known, seed=3, interval=4.0)
    net = policy if role == "policy" else DecisionNet("light", known.feature_names)
    net.trunk.load_state_dict(policy.trunk.state_dict())
    facts = PolicyFacts(
        role=role, kind=kind, feature_names=known.feature_names, widths=net.widths, fingerprint={}
    )
    path = tmp_path / "net.safetensors"
    path.write_bytes(policy_bytes(net, facts))
    (family,) = families(tables, (name,), max_interval=HORIZON, policy=str(path))
    points = family.points((0.6, 0.3, 0.1))
    assert len(points) >= 2 and points[0].share > points[-1].share
    for point in points:
        assert SchedulerConfig(**point.settings).policy == str(path)
        for table, keys in zip(tables, point.keys, strict=True):
            assert np.array_equal(keys_at(table, point.settings, HORIZON), keys)
