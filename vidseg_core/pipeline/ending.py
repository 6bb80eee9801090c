"""How things end.

A video's row, the run's ``run.json`` and ``_SUCCESS``, the closing table, a failure's last words.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from vidseg_core.config.schema import to_dict
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.assemble import NetFacts
from vidseg_core.kit.explain import about_a_name, message, raised
from vidseg_core.kit.progress import Counts, Reporter, clock, tame
from vidseg_core.kit.versions import versions
from vidseg_core.kit.whole import Totals, closed_videos, totals_of
from vidseg_core.pipeline.patience import SourceUnavailable
from vidseg_core.store.errors import CommitConflict, DamagedFile, StoreError
from vidseg_core.store.keys import (
    ENGINE_PREFIX,
    RUN_KEY,
    SUCCESS_KEY,
    states_prefix,
    verdict_key,
    video_key,
)
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import committed_parts, encode_videos, list_states
from vidseg_core.store.run import open_run

_REASONS_SHOWN = 20
_LITTLE = 0.05
"""Below this share of labelled pixels the person is warned: hardly anything can be learned."""
_EXPLAINED = (StoreError, OSError, SourceUnavailable)
"""Errors whose message says all; others come with a traceback."""
_TOLD = ("ClusterError", "EngineBroken", "LeftOpen")
"""The same, by name: their modules are heavy to import. What lies under them has been put into words."""


def close_video(store: ObjectStore, row: Mapping[str, Any]) -> None:
    """Write the video's row (the first driver's row stands) and drop its saved states.

    A row that does not say how many parts the video has gets the number of those that are committed.
    """
    if row.get("parts") is None:
        row = {**row, "parts": sum(1 for _ in committed_parts(store, row["video_id"]))}
    key = video_key(row["video_id"])
    store.put_if_absent(key, encode_videos([row], key))
    for info in list(store.list(states_prefix(row["video_id"]))):
        store.delete(info.key)


def forget_states(store: ObjectStore) -> None:
    """Drop the states that a driver left which died while it closed their videos."""
    closed = set(closed_videos(store).to_pylist())
    for state in list(list_states(store)):
        if state.video_id in closed:
            store.delete(str(state))


def run_totals(store: ObjectStore) -> Totals:
    """The totals of all rows of ``videos/``."""
    return totals_of(open_run(store.root).video_batches())


def forget_quarantined(store: ObjectStore) -> int:
    """Drop the run's end, then the rows and verdicts of quarantined videos; how many there were."""
    rows = run_totals(store).not_ok.filter(pc.field("status") == "quarantined")
    bad = rows["video_id"].to_pylist()
    if bad:
        store.delete(SUCCESS_KEY)
    for video_id in bad:
        store.delete(verdict_key(video_id))
        store.delete(video_key(video_id))
    return len(bad)


def finish(
    store: ObjectStore,
    config: SegmentConfig,
    manifest: Mapping[str, Any],
    net: NetFacts,
    found: Totals,
    started: float,
    report: Reporter,
    dial: Mapping[str, Any] | None = None,
    promised: Sequence[tuple[str, str]] = (),
) -> int:
    """``run.json`` with the totals that were found, then ``_SUCCESS``, then the closing table.

    ``dial``: what was promised and achieved, where --budget or --max_drop chose the scheduler; ``promised``:
    the same as lines of the table.
    """
    totals = found.figures
    seconds = time.monotonic() - started
    info = {
        "schema_version": manifest["schema_version"],
        "fingerprint": manifest["fingerprint"],
        "config": to_dict(config),
        "segmenter": {
            "name": net.name,
            "weights_sha256": net.digest,
            "class_names": list(net.class_names),
            "trained": net.trained,
            "warning": net.warning,
            "note": net.note,
            **({"origin": dict(net.origin)} if net.origin else {}),
        },
        "versions": versions(),
        "timings": {"last_driver_s": round(seconds, 3), "finished_at": _utc(time.time())},
        "totals": totals,
        "cost": {"cpu_s": totals["cpu_s"], "gpu_s": totals["gpu_s"]},
    }
    if dial is not None:
        info["dial"] = dict(dial)
    store.put(RUN_KEY, json.dumps(info, indent=1, sort_keys=True, default=str).encode())
    for mark in list(store.list(ENGINE_PREFIX)):
        store.delete(mark.key)
    store.put_if_absent(SUCCESS_KEY, b"")
    _closing(report, store, found, seconds, dial, promised, net.warning, regions=config.regions.on)
    return found.exit_code


def _closing(
    report: Reporter,
    store: ObjectStore,
    found: Totals,
    seconds: float,
    dial: Mapping[str, Any] | None,
    promised: Sequence[tuple[str, str]],
    warning: str,
    *,
    regions: bool,
) -> None:
    totals, bad = found.figures, found.not_ok.to_pylist()
    if report.is_json:
        chosen: dict[str, Any] = {} if dial is None else {"dial": dict(dial)}
        chosen |= {"warning": warning} if warning else {}
        report.event("summary", output=store.root, seconds=round(seconds, 1), **totals, **chosen)
        for row in bad:
            report.event("video", **{k: row[k] for k in ("video_id", "uri", "status", "reason")})
        return
    report.block(closing_table(totals, bad, seconds, store.root, promised, warning, regions=regions))


def closing_table(
    totals: Mapping[str, Any],
    bad: Sequence[Mapping[str, Any]],
    seconds: float,
    where: str,
    promised: Sequence[tuple[str, str]] = (),
    warning: str = "",
    *,
    regions: bool = False,
) -> str:
    """The table that ends a run: what was done, what was saved, which videos have a reason.

    ``warning``: what must be said of the net. ``regions``: frames have several, so pixels are counted.
    """
    frames = totals["frames"]
    spared = totals["key_net_calls_saved"] if regions else frames - totals["keys"]
    saved = f"{spared:,} ({100 * spared / frames:.1f} %)" if frames else "-"
    lines = [
        ("videos", f"{totals['videos']:,} ({totals['ok']} ok, {totals['partial']} partial)"),
        ("frames", f"{frames:,}"),
        ("frames with key regions" if regions else "key frames", f"{totals['keys']:,}"),
        ("AKI in pixels" if regions else "AKI", f"{totals['aki']:.1f} frames" if totals["aki"] else "-"),
        ("frames of pixels saved" if regions else "key-net calls saved", saved),
        *promised,
        ("this driver's time", f"{clock(seconds)}"),
        ("compute", f"{totals['cpu_s']:.0f} CPU-s, {totals['gpu_s']:.0f} GPU-s (all drivers)"),
        ("quarantined", f"{totals['quarantined']}"),
        ("output", where),
    ]
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)
    if warning:
        text += f"\n  warning: {warning}"
    for row in bad[:_REASONS_SHOWN]:
        uri, reason = (tame(str(row[name]), lines=False) for name in ("uri", "reason"))
        text += f"\n  {row['status']}: {uri}\n      {reason.replace(f'{uri}: ', '')}"
    if len(bad) > _REASONS_SHOWN:
        text += f"\n  ... and {len(bad) - _REASONS_SHOWN} more, see videos/ in the output"
    return text


def labelled_text(counts: Counts) -> str:
    """How much of what a driver looked at came out with a label; empty if it looked at nothing."""
    frames = counts.frames - counts.resumed_frames
    if frames <= 0:
        return ""
    share = counts.labelled / frames
    text = f"labelled: {100 * share:.1f} % of the pixels; the others are doubtful (255)"
    if share < _LITTLE:
        text += (
            ": hardly anything can be learned from that. Is the teacher trained? Else lower --min_confidence"
        )
    return text


def explain_failure(problem: Exception, config: SegmentConfig, report: Reporter) -> int:
    """Last words of a run that cannot go on: one sentence for known causes, a traceback for bugs."""
    cause = root_cause(problem)
    if isinstance(cause, DamagedFile):  # which says itself how to go on
        report.say(f"failed: {message(cause)}.", error=type(cause).__name__)
        return 1
    if named := about_a_name(cause):
        report.say(f"error: {named}", error=type(cause).__name__)
        return 2
    said = message(cause).rstrip(".")
    known = isinstance(cause, _EXPLAINED) or type(cause).__name__ in _TOLD
    if not known:
        report.say(traceback.format_exc(limit=-8))
    report.say(
        f"failed: {type(cause).__name__}: {said}. What is committed in {config.output} "
        f"stays{_how_to_go_on(cause)}.",
        error=type(cause).__name__,
    )
    return 1


def _how_to_go_on(cause: BaseException) -> str:
    """What the same command will do: go on where something outside was wrong, else only try again."""
    if isinstance(cause, CommitConflict):
        return ""
    outside = isinstance(cause, _EXPLAINED) or type(cause).__name__ in ("ClusterError", "LeftOpen")
    return f"; the same command {'goes on' if outside else 'tries again'} from here"


def root_cause(problem: BaseException) -> BaseException:
    """The exception that a worker raised, from under what Ray wraps around it."""
    seen = problem
    while type(seen).__name__ not in _TOLD:
        seen = raised(seen)
        if isinstance(seen, StoreError) or seen.__cause__ is None:
            break
        seen = seen.__cause__
    return seen


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
