"""Promise: a trained scheduler says which regions of frames it has learned from, and decides for no other
grid.

Why: a threshold or a price of a key that was found on quarters of frames means something else on ninths of
them, and nothing in the rows of a run would show it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.episodes.tables import random_table
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine.assemble import check_parts, describe_net
from vidseg_core.episodes.on_tables import keys_on
from vidseg_core.episodes.store import load_tables, open_store, write_table
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.evaluation.bench import make_bench, try_methods
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.planner import planner_bytes, read_planner
from vidseg_core.models.policy_file import PolicyFacts, policy_bytes, read_policy
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.scheduling.learned_regions import note_on_file
from vidseg_core.training.planner_job import open_sets
from vidseg_core.training.policy_job import check_made_alike

WHOLE, HALVES, NINTHS = RegionsConfig(), RegionsConfig(grid="2x2"), RegionsConfig(grid="3x3")
THIN = replace(HALVES, overlap=0)


def planner_of(folder: Path, regions: RegionsConfig) -> str:
    """The planner of the package as if it had learned from such regions."""
    model, facts = read_planner("tiny-planner")
    path = folder / f"planner-{regions.grid}-{regions.overlap}.safetensors"
    learned = {**facts.fingerprint, **regions.recorded()}
    path.write_bytes(planner_bytes(model, replace(facts, fingerprint=learned)))
    return str(path)


def decision_of(folder: Path, regions: RegionsConfig) -> str:
    net = DecisionNet("light", ("distance",))
    facts = PolicyFacts(
        role="decision",
        kind="light",
        feature_names=net.feature_names,
        widths=net.widths,
        fingerprint=regions.recorded(),
    )
    path = folder / f"decision-{regions.grid}.safetensors"
    path.write_bytes(policy_bytes(net, facts))
    return str(path)


def segmenting(name: str, policy: str, regions: RegionsConfig) -> SegmentConfig:
    scheduler = SchedulerConfig(name=name, policy=policy, threshold=0.5)
    return SegmentConfig(
        input=("a",), output="b", segmenter="tiny-scenes", scheduler=scheduler, regions=regions
    )


def table_of(regions: RegionsConfig, clip: str = "clip") -> EpisodeTable:
    table = random_table(clip=clip)
    return replace(
        table,
        feature_names=("frame_difference", "distance"),
        fingerprint={**table.fingerprint, **regions.recorded()},
    )


@pytest.mark.parametrize(
    ("learned", "run", "says"),
    [
        (WHOLE, WHOLE, ""),
        (HALVES, HALVES, ""),
        (WHOLE, HALVES, "has learned from whole frames, and decides for regions 2x2 with overlap 16"),
        (THIN, HALVES, "has learned from regions 2x2 with overlap 0, and decides for regions 2x2 with"),
    ],
)
def test_whole_frames_and_other_overlaps_are_said(learned: Any, run: Any, says: str) -> None:
    note = note_on_file(learned.recorded(), run)
    assert says in note and bool(note) == bool(says)
    assert RegionsConfig.of_record(learned.recorded()) == learned


def test_a_file_of_another_grid_is_refused_before_anything_is_claimed(tmp_path: Path) -> None:
    for name, made in (("planner", planner_of), ("expected_loss", decision_of)):
        file = made(tmp_path, HALVES)
        check_parts(segmenting(name, file, HALVES))
        for other, says in ((NINTHS, "regions 3x3 with overlap 16"), (WHOLE, "whole frames")):
            problem = f"--scheduler.policy: .*: the file has learned from regions 2x2 .* decide for {says}"
            with pytest.raises(ConfigError, match=problem):
                check_parts(segmenting(name, file, other))
    file = decision_of(tmp_path, HALVES)
    assert RegionsConfig.of_record(read_policy(file)[1].fingerprint) == HALVES
    torn = HALVES.recorded() | {"regions.grid": "2by2"}
    with pytest.raises(PolicyError, match="does not say from which regions it has learned: .*2by2"):
        note_on_file(torn, HALVES)


def test_the_package_s_planner_runs_on_regions_and_the_run_says_what_it_learned_from() -> None:
    assert "learned" not in describe_net(segmenting("planner", "tiny-planner", WHOLE)).note
    note = describe_net(segmenting("planner", "tiny-planner", HALVES)).note
    assert note.endswith(
        "The scheduler has learned from whole frames, and decides for regions 2x2 with overlap 16: its "
        "thresholds stand for other intervals here."
    )


def test_evaluate_asks_for_the_grid_of_the_method_or_of_the_clips(tmp_path: Path) -> None:
    file = planner_of(tmp_path, HALVES)

    def tried(data: str, *methods: str) -> str:
        config = EvaluateConfig(data=(data,), output="out", segmenter="labels", methods=methods)
        return try_methods(make_bench(config, "cpu"), config.parsed_methods())

    scenes, planner = "scenes:videos=1,frames=4,height=64,width=64", "planner:threshold=.1,policy="
    assert tried(scenes, f"{planner}{file},regions=2x2") == ""
    assert tried(f"{scenes}?regions=2x2", f"{planner}{file}") == ""
    assert "whole frames, and decides for regions 2x2" in tried(scenes, f"{planner}tiny-planner,regions=2x2")
    for data, options in ((scenes, ""), (scenes, ",regions=3x3"), (f"{scenes}?regions=3x3", "")):
        with pytest.raises(ConfigError, match="--methods: .*has learned from regions 2x2 with overlap 16"):
            tried(data, f"{planner}{file}{options}")


def test_tables_of_different_grids_are_not_learned_from_together(tmp_path: Path) -> None:
    for number, regions in enumerate((WHOLE, HALVES, THIN)):
        for place in ("mixed", str(number)):
            write_table(open_store(tmp_path / place), table_of(regions, f"clip-{number}"))
    with pytest.raises(EpisodeError, match=r"regions.grid: - and 2x2"):
        load_tables(tmp_path / "mixed")  # as train-decision and train-policy do
    for number, differs in (("0", "regions.grid, regions.overlap"), ("2", "regions.overlap")):
        with pytest.raises(ConfigError, match=f"clip clip-1 was made with another {differs} than"):
            open_sets((str(tmp_path / number), str(tmp_path / "1")))


def test_a_decision_net_inside_a_policy_has_learned_from_the_policy_s_regions() -> None:
    """What one of the two files does not name was taken to be alike."""
    check_made_alike(HALVES.recorded(), HALVES.recorded())
    for one, other in ((WHOLE, HALVES), (HALVES, WHOLE), (HALVES, NINTHS)):
        with pytest.raises(ConfigError, match="--decision: learned on tables .* another .*regions.grid"):
            check_made_alike(one.recorded(), other.recorded())


def test_the_keys_of_a_file_are_not_sought_on_tables_of_another_grid(tmp_path: Path) -> None:
    for name, made in (("planner", planner_of), ("expected_loss", decision_of)):
        with pytest.raises(PolicyError, match="is to decide for regions 3x3"):
            keys_on(table_of(NINTHS), name, [0.1], max_interval=5, policy=made(tmp_path, HALVES))
