"""The dial: look at a sample of the corpus once, write down what was chosen, run with it ever after.

a task per run of frames: decode, N on every frame, tables -> the driver offers settings -> a task per run
puts the intervals together that are not known yet -> the choice -> ``_run/calibration.json``, put if
absent. Invariant: an output has one calibration; whoever continues the run reads it and does not calibrate
again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from vidseg_core.calibration.choice import Choice, Valued, describe, plain_choice, regions_of, unseen
from vidseg_core.calibration.evidence import Clip
from vidseg_core.calibration.grids import GridTrial, choose_grid, lookahead_runs, names_for
from vidseg_core.calibration.schedulers import FixedFamily, Point, families
from vidseg_core.calibration.search import search
from vidseg_core.calibration.sizing import draw_sample
from vidseg_core.calibration.tasks import (
    SampleTasks,
    Tasks,
    Way,
    delay_of,
    file_for,
    longest_interval,
    tried_names,
)
from vidseg_core.calibration.ways import Prices, ValueWay, choose_way, other_ways, way_values
from vidseg_core.config.catalogue import EVERY, FIXED, MAP_SETS, MAP_SHAPE, SCHEDULERS, is_of_stream
from vidseg_core.config.dial import CLIP_FRAMES, CLIPS
from vidseg_core.config.errors import ConfigError, check
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.config.words import count
from vidseg_core.engine.assemble import describe_net, plugin_sources
from vidseg_core.episodes.sources import Unit
from vidseg_core.kit.claim import require_same
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.models.policy_file import read_policy
from vidseg_core.models.policy_trunk import map_shape
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.propagation.filler import filler_of
from vidseg_core.propagation.propagators import propagator_of
from vidseg_core.registry import PluginError
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import CALIBRATION_KEY
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.small_files import NUMBER, OTHER_OUTPUT, read_object

PLANS_FROM_OPS = 2e10
"""Floating point operations of N per frame from which the planner is tried: some .4 s of a core, about where
planning takes no longer than the keys that even spacing would need for the same masks (docs/policy.md)."""
MOST_VALUES = 8192
"""Of a map that the dial's tables keep, in memory and with every frame as key: conv6 of FlowNet2-s."""
_CHOSEN = frozenset({"scheduler.name", "scheduler.interval", "scheduler.threshold", "scheduler.max_interval"})

_OF_ANOTHER = "was calibrated for something else"


def is_calibrated(store: ObjectStore) -> bool:
    """Has the run its choice already?"""
    return store.exists(CALIBRATION_KEY)


def chosen_config(
    config: SegmentConfig,
    inputs: Sequence[VideoInput],
    store: ObjectStore,
    net: str,
    report: Reporter,
    tasks: Tasks | None = None,
) -> tuple[SegmentConfig, Choice]:
    """The configuration that runs, and the choice behind it: the one stored with the run, else a new one.

    ``net``: digest of N. ``tasks``: where a sample is looked at; None: in this process.
    ``FingerprintMismatch`` when the run was calibrated for something else.
    """
    ask = _ask(config, inputs, net)
    if not is_calibrated(store):
        with report.phase("calibrating"):
            choice = calibrate(config, inputs, report, tasks)
        found = {"asked_for": ask, "choice": choice.to_json(), "decided_unix_s": round(time.time(), 3)}
        store.put_if_absent(CALIBRATION_KEY, json.dumps(found, indent=1, sort_keys=True).encode())
    _require_same(config, ask, store)
    return stored_config(config, store)


def stored_config(config: SegmentConfig, store: ObjectStore) -> tuple[SegmentConfig, Choice]:
    """The configuration that a calibrated run goes on with, and the choice behind it."""
    there = _read(store)
    try:
        choice = Choice(**there["choice"])
        return with_choice(config, choice), choice
    except (TypeError, ValueError) as error:
        raise DamagedFile(f"{store.root}: {CALIBRATION_KEY} is damaged ({error}); {OTHER_OUTPUT}") from None


def _read(store: ObjectStore) -> dict[str, Any]:
    """What was chosen when the run began, and for what."""
    choice = {"settings!": {}, "key_share!": NUMBER, "fidelity!": (*NUMBER, type(None)), "note!": str}
    return read_object(store, CALIBRATION_KEY, {"asked_for!": {}, "choice!": choice}, OTHER_OUTPUT)


def with_choice(config: SegmentConfig, choice: Choice) -> SegmentConfig:
    """The configuration with the scheduler that was chosen, the dial at rest."""
    most = choice.max_interval or longest_interval(config)
    scheduler = SchedulerConfig(**{"max_interval": most, **choice.settings})
    return config.without_dial(
        scheduler=scheduler,
        propagation=replace(config.propagation, **choice.propagation),
        regions=replace(config.regions, **choice.regions),
    )


def _ask(config: SegmentConfig, inputs: Sequence[VideoInput], net: str) -> dict[str, Any]:
    """Everything that the choice depends on."""
    fields = {name: value for name, value in config.fingerprint_fields().items() if name not in _CHOSEN}
    sample = asdict(config.calibration)
    del sample["audit_frames"]
    if not sample["propagators"]:  # as before there was a choice
        del sample["propagators"]
    if sample["grids"]:
        sample |= {"overlap": config.regions.overlap, "align": config.regions.align}
    else:
        del sample["grids"]
    sample |= {"clips": sample["clips"] or CLIPS, "clip_frames": sample["clip_frames"] or CLIP_FRAMES}
    return {
        **fields,
        **plugin_sources(config),
        **{f"calibration.{name}": value for name, value in sample.items()},
        "budget": config.budget,
        "max_drop": config.max_drop,
        "scheduler.max_interval": config.scheduler.max_interval,
        "weights_sha256": net,
        "inputs": [[video.uri, video.size, video.stamp] for video in inputs]
        if len(inputs) <= 1000
        else len(inputs),
    }


def _require_same(config: SegmentConfig, ask: dict[str, Any], store: ObjectStore) -> None:
    """`FingerprintMismatch` for a run that was calibrated for something else.

    Versions that chose no propagator did not note that it was named: who names the run's own goes on.
    """
    there = _read(store)
    if "ways" not in there["choice"] and config.calibration.propagators == (config.propagation.name,):
        ask = {name: value for name, value in ask.items() if name != "calibration.propagators"}
    require_same(there["asked_for"], ask, store.root, _OF_ANOTHER)


def check_ask(config: SegmentConfig, inputs: Sequence[VideoInput], store: ObjectStore, net: str) -> None:
    """``FingerprintMismatch`` or ``ConfigError`` for what a run with this dial would refuse."""
    check_dial_here(config)
    if is_calibrated(store):
        _require_same(config, _ask(config, inputs, net), store)


# --- the sample -------------------------------------------------------------------------------------------


def calibrate(
    config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter, tasks: Tasks | None = None
) -> Choice:
    """Look at a sample of the inputs, where that is worth its cost, and choose; ``ConfigError`` when there is
    nothing to look at."""
    check_dial_here(config)
    drawn = draw_sample(config, inputs, report)
    if drawn.declined:
        choice = unseen(config, drawn.declined, drawn.lengths)
        report.block(describe(choice))
        return choice
    if not drawn.units:
        raise ConfigError("--calibration", "no video has the 16 decodable frames that it needs")
    return _look_and_choose(drawn.config, drawn.units, report, tasks)


def _look_and_choose(
    config: SegmentConfig, units: Sequence[Unit], report: Reporter, tasks: Tasks | None
) -> Choice:
    started = time.monotonic()
    names = at_hand(config, report)
    frames = sum(unit.frames for unit in units)
    report.say(
        f"calibrating on {len(units)} runs of frames from {count(len({u.source for u in units}), 'video')}, "
        f"{frames:,} frames, the net on each of them"
    )
    sample = tasks(units) if tasks is not None else SampleTasks(config, units)
    clips, places, net_s, prices = look_at_all(config, sample, report)
    if delay_of(config):
        report.say(
            "note: while a key is under way, its frames count as carried from the key before it in one step; "
            "the run takes two"
        )
    frames_of = [clip.table.frames for clip in clips]
    names = worth_trying(config, names, prices.net, report)

    def look(way: Way) -> GridTrial:
        report.say(f"calibrating: the net on the crops of {way.regions.words()}")
        names_here = names_for(names, config, way, report.say)
        problem = crops_problem(config, way.regions) if names_here else "no scheduler is left to try"
        return GridTrial(config, way, sample, places, names_here, problem)

    if config.regions.on:
        trial = look(Way(config.regions, config.propagation))
        check(not trial.problem, "--regions.grid", trial.problem)
        choice = trial.search(config.budget, frames_of, net_s)
        choice = replace(choice, regions=regions_of(config, choice.settings))
    else:
        choice = _of_whole_frames(config, clips, places, sample, names, (net_s, prices), report)
        choice = choose_grid(config, choice, prices, look, frames_of, report.say)
    report.block(describe(choice))
    if choice.settings["name"] == EVERY and config.calibration.quality == "fidelity":
        report.say(
            "--calibration.quality accuracy counts pixels, which is less strict than a mean over classes"
        )
    report.say(f"calibrated in {clock(time.monotonic() - started)}", **plain_choice(choice))
    return choice


def crops_problem(config: SegmentConfig, regions: RegionsConfig) -> str:
    """Why N or a plug-in does not go with the crops of a grid that is tried; empty: they do."""
    if regions == config.regions:  # the run has tried them
        return ""
    own = replace(config.calibration, grids=())
    try:
        describe_net(replace(config, regions=regions, calibration=own))
    except (ConfigError, SegmenterError, PluginError) as problem:
        return str(problem)
    return ""


def _of_whole_frames(
    config: SegmentConfig,
    clips: Sequence[Clip],
    places: Sequence[int],
    sample: SampleTasks,
    names: Sequence[str],
    costs: tuple[float, Prices],
    report: Reporter,
) -> Choice:
    """The choice of scheduler, setting and propagator."""
    net_s, prices = costs
    seen, longest = [clip.table for clip in clips], longest_interval(config)
    found = families(
        seen,
        names,
        max_interval=longest,
        policy=config.scheduler.policy,
        ahead=lookahead_runs(config, seen, sample, names, share=config.budget),
    )
    frames, even = [clip.table.frames for clip in clips], FixedFamily(seen, longest)
    choice = search(
        found,
        clip_valuer(clips, places, sample, report),
        budget=config.budget,
        max_drop=config.max_drop,
        frames=frames,
        seed=config.seed,
        net_s=net_s,
        even=even,
    )
    choice = replace(choice, max_interval=longest)
    value = way_valuer(places, sample, report)
    return choose_way(config, choice, prices, found, even, value, frames, report.say)


def at_hand(config: SegmentConfig, report: Reporter) -> tuple[str, ...]:
    """The schedulers with which the run would begin under its own propagator, asked before N runs on the
    sample. ``ConfigError`` where there is none."""
    own = Way(config.regions, config.propagation)
    names = names_for(tried_names(config), config, own, report.say)
    check(bool(names), "--calibration", "no scheduler is left to try")
    return names


def worth_trying(
    config: SegmentConfig, names: tuple[str, ...], net_ops: float, report: Reporter
) -> tuple[str, ...]:
    """Those of the schedulers that pay; one that looks ahead only if it was asked for or the net is expensive
    enough, in operations: seconds would make the choice a matter of luck."""
    ahead = _looking_ahead(names)
    if not ahead or {config.scheduler.name, *config.calibration.schedulers} & set(ahead):
        return names
    if net_ops >= PLANS_FROM_OPS:
        return names
    why = f"the net takes {net_ops / 1e9:.2g} GFLOP a frame, and planning pays from {PLANS_FROM_OPS / 1e9:g}"
    why = why if net_ops else "what the net costs is not known (torch counts no operations)"
    is_tried, it = ("is not tried", "it") if len(ahead) == 1 else ("are not tried", "them")
    also = f"--calibration.schedulers {FIXED} {' '.join(ahead)} tries {it} all the same"
    report.say(f"{' and '.join(ahead)} {is_tried}: {why}; {also}")
    return tuple(name for name in names if name not in ahead)


def _looking_ahead(names: Sequence[str]) -> list[str]:
    return [name for name in names if SCHEDULERS[name].looks_ahead]


def check_dial_here(config: SegmentConfig) -> None:
    """``ConfigError`` for what the dial cannot do."""
    option = "--budget" if config.budget is not None else "--max_drop"
    name = config.scheduler.name
    check(":" not in name, option, f"cannot set the threshold of a plug-in ({name}); give it yourself")
    entry = SCHEDULERS.get(name)
    problem = f"cannot set the threshold of {name}: no table holds what it reads"
    check(entry is None or entry.walks_tables or not entry.reads_low, option, problem)
    scores = name in SCHEDULERS and SCHEDULERS[name].trained_by in ("train-policy", "train-decision")
    large = large_map(config.scheduler.policy) if scores and config.scheduler.policy else ""
    problem = f"cannot set the threshold of a net that reads {large}: its maps are too large to be kept"
    check(not large, option, problem)
    carrier = config.propagation
    filler = filler_of(propagator_of(carrier), two_sided=carrier.sides == "two")
    problem = f"needs masks that follow from the key before them, but {carrier.name} remembers through keys"
    problem += "; --propagation.self_check false" * carrier.checks_itself
    check(filler.ends_at_keys, option, problem)
    problem = f"does not go with --propagation.flow {carrier.flow}: it tries pairs that no stream knows"
    check(not is_of_stream(carrier.flow), option, problem)
    other_ways(config)
    for tried in config.calibration.schedulers:
        late = SCHEDULERS[tried].looks_ahead and carrier.latency == "low"
        problem = f"{tried!r} looks ahead, which does not go with --propagation.latency low"
        check(not late, "--calibration.schedulers", problem)
        problem = f"{tried!r} needs its file: --scheduler.name {tried} --scheduler.policy FILE"
        needs_none = not SCHEDULERS[tried].trained_by
        check(needs_none or file_for(tried, config) is not None, "--calibration.schedulers", problem)


def large_map(policy: str) -> str:
    """The set of maps that a policy or a decision net reads, if the dial's tables cannot keep it."""
    _, facts = read_policy(policy)
    name = facts.feature_names[0]
    values = math.prod(map_shape(facts.fingerprint[MAP_SHAPE])) if name in MAP_SETS else 0
    return name if values > MOST_VALUES else ""


def look_at_all(
    config: SegmentConfig, sample: SampleTasks, report: Reporter
) -> tuple[list[Clip], list[int], float, Prices]:
    """Clips that say something, their places in the sample, seconds of N per frame, and operations."""
    clips, places, seconds, operations, fills_low = [], [], [], [], False
    two_sided = config.propagation.sides == "two"
    for place, looked in enumerate(sample.look()):
        report.show(
            f"calibrating: run {place + 1}/{len(sample.units)}", {"calibration_runs": place + 1}, force=False
        )
        if looked.table is None:
            report.say(f"note: passed over: {looked.problem}")
            continue
        clips.append(Clip(table=looked.table, two_sided=two_sided, known={}, delay=delay_of(config)))
        places.append(place)
        seconds.append(looked.net_s)
        operations.append(
            (looked.net_ops, looked.flow_ops, looked.own_ops, looked.low_ops, looked.expects_ops)
        )
        fills_low = looked.fills_low
    if len(clips) < 2:
        problem = "fewer than two runs of frames say anything about schedules; set the scheduler yourself"
        raise ConfigError("--calibration", problem)
    net, flow, own, low, expects = np.median(operations, axis=0).tolist()
    prices = Prices(net, flow, own, low=low, fills_low=fills_low, expects=expects)
    return clips, places, float(np.median(seconds)), prices


def way_valuer(places: Sequence[int], sample: SampleTasks, report: Reporter) -> ValueWay:
    def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
        report.show(f"calibrating: {len(points)} settings with {way.name}", {"settings": len(points)})
        wanted = [(place, [point.keys[c] for point in points]) for c, place in enumerate(places)]
        return way_values(sample.value_way(way, wanted), points)

    return value


def clip_valuer(
    clips: Sequence[Clip], places: Sequence[int], sample: SampleTasks, report: Reporter
) -> Callable[[Sequence[Point]], list[Valued]]:
    def value(points: Sequence[Point]) -> list[Valued]:
        wanted = [
            (number, pairs)
            for number, clip in enumerate(clips)
            if (pairs := clip.missing(point.keys[number] for point in points))
        ]
        if wanted:
            count = sum(len(pairs) for _, pairs in wanted)
            report.show(f"calibrating: {count:,} intervals of {len(points)} settings", {"intervals": count})
            found = sample.put_together([(places[number], pairs) for number, pairs in wanted])
            for (number, _), known in zip(wanted, found, strict=True):
                clips[number].known.update(known)
        return [
            Valued(
                point=point,
                quality_C=np.array([clip.quality(point.keys[c]) for c, clip in enumerate(clips)]),
            )
            for point in points
        ]

    return value
