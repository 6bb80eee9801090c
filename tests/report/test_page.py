"""Promise: the page shows what there is and says what is not there; text from outside is text; it opens in a
real browser without a word on the console; one bad input costs itself only.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evaluation.small import config as evaluation
from tests.evaluation.small import evaluate_here
from tests.evaluation.test_measures import make_older
from tests.store.builders import video_row
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.report import ReportConfig
from vidseg_core.engine import FrameResult
from vidseg_core.evaluation.read import Evaluation, open_evaluation
from vidseg_core.kit.progress import Reporter
from vidseg_core.report.curves import curves_of, shares
from vidseg_core.report.of_nets import comparable, nets_section, ranks_of, ranks_together
from vidseg_core.report.of_run import outline, score_plot, spread
from vidseg_core.report.of_search import front
from vidseg_core.report.page import Section, esc, num, render
from vidseg_core.report.report_job import Gathered, gather, run_report
from vidseg_core.report.report_job import page as whole_page
from vidseg_core.report.schedules import Schedule, interval_plot, timeline_plot
from vidseg_core.report.style import looks, plain
from vidseg_core.store import encode_part, encode_videos, open_store, part_key
from vidseg_core.store.errors import StoreError

NAN = float("nan")
HOSTILE = '<script>alert("$x^2$")</script>&amp; \x00\u2028 $\\frac{1}{0}$'
METHODS = (
    "fixed:interval=3,6",
    "fixed:interval=3,6,sides=two,label=both <b>sides</b>",
    "warp_error:threshold=2,6",
    "every",
)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of two small clips."""
    folder = tmp_path_factory.mktemp("evaluated")
    assert evaluate_here(evaluation(folder, methods=METHODS))[0] == 0
    return folder


def row_of(number: int) -> FrameResult:
    key, labels_HW = number // 4 * 4, np.zeros((12, 16), np.uint8)
    labels_HW[2:6, number : number + 4] = 1
    score = float("inf") if number == 0 else 1.0 + number % 4
    values: dict[str, Any] = {"decision_score": score, "kar": 0.25, "lkd": number - key, "is_corrupt": False}
    return FrameResult(
        frame_index=number,
        pts_s=number / 10,
        is_key=number == key,
        key_frame_index=key,
        labels_HW=labels_HW,
        **values,
    )


def write_run(folder: Path, uri: str = "a.mp4", *, finished: bool = True, net: str = "plain") -> Path:
    """A run of one good and one quarantined video, by hand."""
    store = open_store(folder)
    store.put(
        str(part_key("a-0123456789", 0, 0)), encode_part("a-0123456789", [row_of(n) for n in range(12)])
    )
    video: dict[str, Any] = video_row(
        "a-0123456789",
        12,
        uri="a.mp4",
        width=16,
        height=12,
        keys=3,
        aki=4.0,
        duration_s=1.2,
        cpu_s=0.6,
        gpu_s=0.1,
    )
    bad = video | {"video_id": "b-0123456789", "uri": uri, "status": "quarantined", "reason": f"crash: {uri}"}
    bad |= {"decoded_frames": 0, "keys": 0, "aki": None, "duration_s": None, "codec": None}
    store.put("videos/a-0123456789.parquet", encode_videos([video]))
    store.put("videos/b-0123456789.parquet", encode_videos([bad]))
    info = {
        "schema_version": 1,
        "config": {"scheduler": {"name": "warp_error", "threshold": 3.0}, "working_size": "512"},
        "segmenter": {"name": net, "weights_sha256": net * 9, "class_names": ["background", "thing"]},
    }
    store.put("run.json", json.dumps(info).encode())
    if finished:
        store.put("_SUCCESS", b"")
    return folder


def report(output: Path, *inputs: Path, **options: Any) -> tuple[str, str]:
    """(page, what was said)."""
    text = io.StringIO()
    settings = ReportConfig(input=tuple(map(str, inputs)), output=str(output), **options)
    assert run_report(settings, Reporter("text", text)) == 0
    return (output / "index.html").read_text(), text.getvalue()


def test_an_evaluation_fills_its_sections_and_the_page_is_whole_in_itself(
    evaluated: Path, tmp_path: Path
) -> None:
    page, said = report(tmp_path, evaluated, aki=5)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Evaluation",
        "Quality, keys and speed",
        "Where the keys are",
        "Classes",
        "Masks",
        "Worst frames",
        "Temporal consistency",
        "Cost and latency",
        "Not shown",
    ]
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"aki.png", "aki.svg", "fps.svg", "intervals.png", "timeline.svg", "decay.png"} <= plots
    assert all(
        address.startswith("data:") for address in re.findall(r'(?:src|srcset|href)="([^"#][^"]*)"', page)
    )
    assert {"consistency.svg", "warping.svg"} <= plots
    assert "TC by class (ETC Table VI)" in page and ">TC, visible</th>" in page
    assert "<script" not in page and "both &lt;b&gt;sides&lt;/b&gt;" in page
    assert "share of the gap to the oracle" in said and "training curves" in said


def test_the_consistency_of_an_older_evaluation_is_that_of_visible_pixels(
    evaluated: Path, tmp_path: Path
) -> None:
    shutil.copytree(evaluated, tmp_path / "older")
    make_older(tmp_path / "older")
    page, _ = report(tmp_path / "page", tmp_path / "older")
    assert "TC of visible pixels" in page and "TC by ETC Eq. 5" not in page and "TC by class" not in page


def test_a_run_is_shown_with_what_was_put_aside(tmp_path: Path) -> None:
    page, _ = report(tmp_path / "page", write_run(tmp_path / "run", HOSTILE))
    assert "Quarantined and partial videos" in page and "1 video was quarantined" in page
    assert "<script>" not in page and "&lt;script&gt;alert" in page and "not finished" not in page
    assert "\x00" not in page


def test_a_run_that_is_not_finished_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    page, _ = report(tmp_path / "page", write_run(tmp_path / "run", finished=False))
    assert "This run is not finished (no _SUCCESS)" in page and "Key frames" in page


def test_inputs_of_different_nets_are_told_apart(tmp_path: Path, evaluated: Path) -> None:
    page, _ = report(
        tmp_path / "page", write_run(tmp_path / "one"), write_run(tmp_path / "two", net="other"), evaluated
    )
    assert "different nets" in page and "Run 1" in page and "Run 2" in page and "<h2>Evaluation<" in page


def test_nets_that_saw_the_same_are_compared_in_one_plot_and_one_table(
    tmp_path: Path, evaluated: Path
) -> None:
    """Two nets on the same clips were called not comparable, which is what one evaluates them for."""
    place, methods = tmp_path / "other", ("fixed:interval=3", "every")
    evaluate_here(evaluation(place, methods=methods, segmenter="tiny:8", num_classes=6))
    one, other = open_evaluation(evaluated), open_evaluation(place)
    section = nets_section([one, other])
    assert section is not None and [plot.name for plot, _ in section.plots] == ["nets"]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in "".join(section.parts).split("<tr>")[2:]]
    assert len(rows) == len(one.methods) + len(other.methods)
    best = next(cells for cells in rows if cells[:2] == ["plain", "every"])
    assert best[6] == "1"  # no other net and no schedule has a better mIoU
    elsewhere = Evaluation(other.store)
    elsewhere.__dict__["info"] = other.info | {"config": other.config | {"clip_frames": 9}}
    assert not comparable([one, elsewhere]) and nets_section([one, elsewhere]) is None
    fewer = [row for row in other.results if row["clip"] != other.clips[0]]
    aside = [{"clip": other.clips[0], "method": "every"}]
    smaller = other.info | {"config": other.config | {"working_size": "64"}}
    for what, found in {"info": smaller, "results": fewer, "quarantine": aside}.items():
        elsewhere = Evaluation(other.store)
        elsewhere.__dict__[what] = found
        assert not comparable([one, elsewhere]), what
    for compared in (True, False):
        found = Gathered(nets={"a": "x", "b": "y"}, compared=compared)
        assert ("different nets" in whole_page(ReportConfig(input=("a", "b")), found)) != compared


def test_what_was_not_measured_has_no_rank() -> None:
    """A net without TC was ranked last by it, and its sum of ranks suffered."""
    ranks = {"miou": ranks_of([0.5, 0.7, 0.6]), "tc": ranks_of([0.8, None, NAN]), "fps": ranks_of([1, 3, 3])}
    assert ranks == {"miou": [3, 1, 2], "tc": [1, None, None], "fps": [3, 1, 1]}
    assert ranks_together(list(ranks.values())) == [1, None, None]


def test_labels_for_a_net_of_unknown_cost_have_no_speed_and_no_cost(tmp_path: Path) -> None:
    place = tmp_path / "in"
    assert (
        evaluate_here(evaluation(place, methods=("every", "fixed:interval=5"), segmenter="labels", limit=1))[
            0
        ]
        == 0
    )
    page, said = report(tmp_path / "out", place)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert "Quality and keys" in titles and "Cost and latency" not in titles
    assert "fps" not in page and "evaluate --key_net_ms" in said


def test_one_bad_input_costs_itself_only(tmp_path: Path, evaluated: Path) -> None:
    old = write_run(tmp_path / "old")
    (old / "run.json").write_text('{"schema_version": 0}')
    page, said = report(tmp_path / "page", old, evaluated)
    assert "schema version 0, this vidseg reads 1" in page and "schema version 0" in said
    assert "<h2>Evaluation<" in page
    with pytest.raises(StoreError, match="neither run.json nor frames/"):
        gather(ReportConfig(input=(str(tmp_path / "nothing"),)))
    with pytest.raises(ConfigError, match="no clip 'scene-000-maxed'.*did you mean"):
        gather(ReportConfig(input=(str(evaluated),), clip="scene-000-maxed"))


def test_an_evaluation_that_is_not_whole_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    from tests.evaluation.small import davis

    for name in ("good", "bad"):
        davis(tmp_path / "davis", name, [np.eye(24, 32, dtype=np.uint8)] * 8)
    cv2.imwrite(str(tmp_path / "davis" / "bad" / "labels" / "00002.png"), np.zeros((12, 16), np.uint8))
    out = tmp_path / "out"
    place = (f"davis:{tmp_path / 'davis'}",)
    evaluate_here(evaluation(out, data=place, segmenter="labels", methods=("fixed:interval=4",)))
    (out / "_SUCCESS").unlink()
    page, _ = report(tmp_path / "page", out)
    assert "has not come to its end (no _SUCCESS)" in page and "<h2>Classes<" in page
    assert "<h2>Put aside<" in page and "the labels are 16x12, but their image" in page
    (out / "run.json").unlink()
    with pytest.raises(StoreError, match=r"this evaluation was never finished \(1 cells are there"):
        gather(ReportConfig(input=(str(out),)))
    manifest = out / "_run" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 0}))
    with pytest.raises(StoreError, match="evaluation version 0, this reads 3"):
        gather(ReportConfig(input=(str(out),)))


def test_parts_of_an_older_schema_are_told_also_where_run_json_is_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    (run / "run.json").unlink()
    (part,) = (run / "frames").rglob("*.parquet")
    table = pq.read_table(part)
    old = {**table.schema.metadata, b"vidseg.schema_version": b"0"}
    pq.write_table(table.replace_schema_metadata(old), part)
    with pytest.raises(StoreError, match="schema version 0"):
        gather(ReportConfig(input=(str(run),)))


def test_scores_of_a_long_video_are_outlined_and_its_keys_spread() -> None:
    rng = np.random.default_rng(0)
    score, is_key = rng.random(20_000), rng.random(20_000) < 0.2
    score[12_345], score[7] = 9.0, np.nan
    shown = outline(score, 500)
    assert 12_345 in shown and len(shown) <= 1000 and (outline(score[:1000], 500) == np.arange(1000)).all()
    keys = np.flatnonzero(is_key)
    few = spread(keys, 300)
    assert 250 < len(few) <= 301 and set(few) <= set(keys) and np.diff(few).max() < 150
    assert (spread(keys[:300], 300) == keys[:300]).all()
    columns = {"number": np.arange(20_000), "score": score, "is_key": is_key}
    assert len(score_plot([("clip", columns)], 0.5, "scores").save("svg")) < 400_000


def test_masks_are_shown_without_their_frames_when_the_data_is_gone(tmp_path: Path) -> None:
    from tests.evaluation.small import davis

    davis(tmp_path / "davis", "dog", [np.eye(24, 32, dtype=np.uint8)] * 8)
    settings = evaluation(
        tmp_path / "out",
        data=(f"davis:{tmp_path / 'davis'}",),
        segmenter="labels",
        methods=("fixed:interval=4",),
    )
    evaluate_here(settings)
    shutil.rmtree(tmp_path / "davis")
    page, _ = report(tmp_path / "page", tmp_path / "out")
    assert "masks are shown without their frames" in page


def test_training_curves_and_a_search_are_recognised(tmp_path: Path) -> None:
    training, search = tmp_path / "training", tmp_path / "search"
    for folder in (training, search):
        folder.mkdir()
    rows = {
        "batch": list(range(50)),
        "mean_return": [float(n) for n in range(50)],
        "val_quality": [None if n % 10 else n / 50 for n in range(50)],
    }
    pq.write_table(pa.table(rows), training / "curve.parquet")
    points = [{"aki": 10.0, "quality": 0.9, "threshold": 0.2}]
    (training / "run.json").write_text(json.dumps({"verb": "train-policy", "operating_points": points}))
    trials = {
        "trial": [0, 1, 2],
        "aki": [10.0, 20.0, 15.0],
        "quality": [0.8, 0.7, 0.6],
        "note": ["", HOSTILE, ""],
    }
    pq.write_table(pa.table(trials), search / "trials.parquet")
    page, said = report(tmp_path / "page", training, search)
    assert (
        "<h2>Training<" in page
        and "Operating points" in page
        and "<h2>Search<" in page
        and "<script>" not in page
    )
    assert "Trials on the front" in page and "give an output of vidseg evaluate" in said


def test_a_propagator_in_training_is_shown_by_gap_beside_the_others(tmp_path: Path) -> None:
    """The losses of train-propagation had no names, so its curve was empty but for the learning rate."""
    training = tmp_path / "training"
    training.mkdir()
    rows = {"step": [50, 100], "scores": [2.0, 1.0], "labels": [0.0, 0.0]}
    pq.write_table(pa.table(rows), training / "curve.parquet")
    scores = [
        {"clip": clip, "method": method, "gap": gap, "pairs": 3, "miou": value}
        for clip, value in (("a", 0.5), ("b", 0.7))
        for method in ("Copy", "Lvs")
        for gap in (1, 20)
    ]
    ranks = [{"clip": "a", "expected": 0.875, "difference": 0.75}]
    facts = {"verb": "train-propagation", "details": {"scores": scores, "ranks": ranks}}
    (training / "run.json").write_text(json.dumps(facts))
    page, _ = report(tmp_path / "page", training)
    assert "On clips left out" in page and "gap 20" in page and page.count("0.600") == 4
    assert "expected deviation 0.875, mean difference of the pictures 0.750" in page


def test_the_front_holds_what_no_other_beats() -> None:
    rng = np.random.default_rng(0)
    costs, gains = rng.integers(0, 12, (2, 60)).astype(float)
    best = front(costs, gains)
    beaten = [
        any(
            (costs[j] <= costs[i]) & (gains[j] >= gains[i]) & ((costs[j] < costs[i]) | (gains[j] > gains[i]))
            for j in range(60)
        )
        for i in range(60)
    ]
    assert {(costs[i], gains[i]) for i in best} == {(costs[i], gains[i]) for i in range(60) if not beaten[i]}


def test_the_share_closed_is_between_fixed_and_oracle_of_the_same_propagation() -> None:
    def row(scheduler: str, aki: float, quality: float, sides: str = "one") -> dict[str, Any]:
        named = {"method": scheduler, "scheduler": scheduler, "sides": sides, "point": ""}
        return named | {
            "propagator": "flow_warp",
            "level": "labels",
            "flow": "dis",
            "aki": aki,
            "miou": quality,
            "fps": 1.0,
        }

    rows = [row("fixed", 10, 0.8), row("fixed", 20, 0.6), row("oracle", 10, 0.9), row("oracle", 20, 0.8)]
    rows += [row("policy", 10, 0.85), row("policy", 20, 0.55), row("policy", 20, 0.9, "two")]
    found = shares(curves_of(rows, "miou"), [10, 20, 40])
    name = "policy (labels, one-sided)"
    assert found[name][:2] == pytest.approx([0.5, -0.25]) and np.isnan(found[name][2])
    assert found["fixed"][:2] == [0.0, 0.0] and set(found) == {"fixed", name}
    (curve, *_) = curves_of(rows, "miou")
    assert curve.at(10) == 0.8 and curve.at(40 / 3) == pytest.approx(0.7)  # linear in keys per frame


def test_text_from_outside_is_text_in_html_and_in_plots() -> None:
    assert esc(HOSTILE).startswith("&lt;script&gt;alert(&quot;") and "\x00" not in esc(HOSTILE)
    assert plain("a$b\n$c") == r"a\$b \$c" and len(plain("x" * 200)) == 48
    name = HOSTILE
    schedule = Schedule(
        name=name,
        is_key=np.array([True, False, True]),
        quality=np.array([1.0, 0.5, 1.0]),
        distance=np.array([0, 1, 0]),
        intervals=np.array([2]),
    )
    look = looks([name])
    for plot in (interval_plot([schedule], look, "a"), timeline_plot([schedule], look, name, "b")):
        assert b"<script>" not in plot.save("svg") and plot.save("svg") == plot.save("svg")
        picture = cv2.imdecode(np.frombuffer(plot.save("png", narrow=True), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape[1] < 700
    section = Section(HOSTILE)
    section.table([HOSTILE], [[HOSTILE]])
    page = render(HOSTILE, [], [section], {HOSTILE: HOSTILE}, HOSTILE)
    assert "<script" not in page and section.anchor == "script-alert-x-2-script-amp-frac-1-0"


def test_numbers_for_people() -> None:
    assert [num(None), num(float("nan")), num(float("inf")), num(-1.25, 1), num(12345)] == [
        "–",
        "–",
        "∞",
        "−1.2",
        "12,345",
    ]


def test_what_cannot_be_asked_for_is_told_at_once() -> None:
    good = ReportConfig(input=("x",))
    for options, says in (
        ({"input": ()}, "--input: needs"),
        ({"output": "s3://bucket/x"}, "--output: must be a local folder"),
        ({"aki": 0.5}, "--aki"),
        ({"strip_frames": 0}, "--strip_frames"),
        ({"cpu_hour": -1.0}, "--cpu_hour"),
    ):
        with pytest.raises(ConfigError, match=says):
            replace(good, **options)


def test_a_real_browser_opens_the_page_without_a_word_on_the_console(evaluated: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on PATH")
    hostile = write_run(tmp_path / "run", HOSTILE)
    report(tmp_path / "page", evaluated, hostile, title=HOSTILE)
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--dump-dom",
        (tmp_path / "page" / "index.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "</section>" in done.stdout
    spoken = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert spoken == []
