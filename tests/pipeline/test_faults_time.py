"""Promise: nothing hangs on the wall clock, and a video that changes between two drivers is never mixed: the
second is refused, and says which. A video that needs more memory than allowed costs itself only.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pipeline.clips import make_corpus, moving_disc, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import Killed, rows_without_package, run_inline
from vidseg_core.engine.assemble import describe_net
from vidseg_core.kit.manifest import claim_output
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import MediaLimits
from vidseg_core.pipeline import ending, stages
from vidseg_core.pipeline.output import manifest_of
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.pipeline.status import read_status
from vidseg_core.plan import expand_inputs
from vidseg_core.store.objects import open_store
from vidseg_core.store.run import open_run


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "in", (26, 41))


def killed_after(parts: int) -> Any:
    left = [parts]

    def tick(where: str) -> None:
        left[0] -= where == "after commit"
        if left[0] == 0:
            raise Killed

    return tick


def test_a_clock_that_runs_backwards_changes_nothing(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(small_config(clips, tmp_path / "plain", segmenter="plain"), 2)
    config = small_config(clips, tmp_path / "out", segmenter="plain")
    store, net = open_store(config.output), describe_net(config)
    manifest = manifest_of(config, net)
    now = [time.time()]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    claim_output(store, manifest, expand_inputs(config.input))
    started = time.monotonic()
    for parts in (2, 3):
        with pytest.raises(Killed):
            run_inline(config, 2, killed_after(parts))
        for path in tmp_path.glob("out/**/*.parquet"):  # written "tomorrow", as the next driver sees it
            path.touch()
        assert read_status(config.output).idle_s == 0.0
    run_inline(config, 2)
    text = io.StringIO()
    assert (
        ending.finish(store, config, manifest, net, ending.run_totals(store), started, Reporter("text", text))
        == 0
    )
    assert rows_without_package(tmp_path / "out") == rows_without_package(tmp_path / "plain")
    assert "-" not in next(line for line in text.getvalue().splitlines() if "this driver's time" in line)


@pytest.mark.parametrize("change", ["bytes", "same size", "time alone", "gone"])
def test_a_video_that_changed_between_two_drivers_is_refused_by_name(
    change: str, clips: Path, tmp_path: Path
) -> None:
    config = small_config(clips, tmp_path / "out", segmenter="plain")
    manifest = manifest_of(config, describe_net(config))
    claim_output(open_store(config.output), manifest, expand_inputs(config.input))
    with pytest.raises(Killed):
        run_inline(config, 2, killed_after(2))
    before = rows_without_package(tmp_path / "out")
    victim = sorted(clips.iterdir())[0]
    data, info = victim.read_bytes(), victim.stat()
    if change == "gone":
        victim.unlink()
    elif change == "bytes":
        write_video(victim, moving_disc(30, seed=9))
    elif change == "same size":
        victim.write_bytes(data[:-1] + b"\0")
    else:
        import os

        os.utime(victim, ns=(info.st_atime_ns, info.st_mtime_ns - 5_000_000_000))
    text = io.StringIO()
    assert run_segment(config, Reporter("text", text)) == 2
    told = "missing now" if change == "gone" else "1 changed since"
    assert told in text.getvalue() and str(victim) in text.getvalue(), text.getvalue()
    assert rows_without_package(tmp_path / "out") == before


def test_a_video_that_needs_more_memory_than_allowed_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_corpus(tmp_path / "in", (20,))
    write_video(clips / "large.mp4", np.repeat(moving_disc(1, 4320, 7680), 2, axis=0))  # 50 MB a picture
    monkeypatch.setattr(stages, "limits_of", lambda _: MediaLimits(memory_bytes=80_000_000))
    run_inline(small_config(clips, tmp_path / "out", segmenter="plain"), 1)
    rows = {Path(row["uri"]).name: row for row in open_run(str(tmp_path / "out")).videos().to_pylist()}
    assert rows["clip 0 ä.mp4"]["status"] == "ok" and rows["clip 0 ä.mp4"]["decoded_frames"] == 20
    assert rows["large.mp4"]["status"] in ("quarantined", "partial")  # its first frames may fit
    reason = rows["large.mp4"]["reason"].partition(":")[0]
    assert reason in ("too_large", "no_frames", "lost_frames")  # some call a refused allocation invalid data


@pytest.mark.parametrize("change", ["another file", "written to in place"])
def test_a_video_that_changes_during_a_run_costs_itself_only(
    change: str, clips: Path, tmp_path: Path
) -> None:
    second, first = sorted(clips.iterdir())  # the longer one's branch comes first
    begun: list[Path] = []

    def tick(where: str) -> None:
        if begun or where != "before engine":
            return
        begun.append(second)
        data = second.read_bytes()
        if change == "another file":
            second.unlink()
        second.write_bytes(data + b"\0")

    run_inline(small_config(clips, tmp_path / "out", segmenter="plain"), 2, tick)
    rows = {Path(row["uri"]): row for row in open_run(str(tmp_path / "out")).videos().to_pylist()}
    assert rows[first]["status"] == "ok" and rows[first]["decoded_frames"] == 41
    assert rows[second]["status"] == "quarantined"
    assert rows[second]["reason"].startswith("changed: ") and str(second) in rows[second]["reason"]
