"""Promise: command line and YAML file are one schema; what is typed wins; nothing is silently ignored.

The names themselves are a contract with everybody's scripts and are frozen in ``golden_cli.txt``.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from vidseg_core.config import ConfigError, SegmentConfig
from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.config.cli import parse
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.export import ExportConfig
from vidseg_core.config.help import field_texts, options, render_help
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.config.nets import FETCHED, NET_FAMILIES, NETS
from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.report import ReportConfig
from vidseg_core.config.schema import from_dict
from vidseg_core.config.submit import SubmitConfig
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.config.train_planner import TrainPlannerConfig
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.config.tune import TuneConfig
from vidseg_core.config.verbs import CompactConfig, DemoConfig, DoctorConfig, StatusConfig

GOLDEN = Path(__file__).with_name("golden_cli.txt")
CONFIGS: dict[str, type] = {
    "segment": SegmentConfig,
    "pseudo-label": PseudoLabelConfig,
    "train-segmenter": TrainSegmenterConfig,
    "train-flow": TrainFlowConfig,
    "train-propagation": TrainPropagationConfig,
    "build-episodes": BuildEpisodesConfig,
    "train-policy": TrainPolicyConfig,
    "train-decision": TrainDecisionConfig,
    "train-planner": TrainPlannerConfig,
    "tune": TuneConfig,
    "submit": SubmitConfig,
    "status": StatusConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "inspect": InspectConfig,
    "compact": CompactConfig,
    "export": ExportConfig,
    "demo": DemoConfig,
    "doctor": DoctorConfig,
}
NEEDED = ["--input", "a", "--output", "b", "--segmenter", "plain"]


def segment(*argv: str) -> SegmentConfig:
    return parse("segment", SegmentConfig, argv)


def surface() -> str:
    """Every option of every verb: name, values, default."""
    lines = []
    for verb, cls in CONFIGS.items():
        for option in options(cls):
            default = "required" if option.required else option.default or "off"
            lines.append(f"{verb} --{option.name} {option.metavar or 'flag'} [{default}]")
    return "\n".join(lines) + "\n"


def test_the_option_names_are_the_frozen_ones() -> None:
    assert surface() == GOLDEN.read_text(), (
        "if the change is meant, say so in CHANGELOG.md and update the file"
    )


def test_input_output_and_segmenter_suffice() -> None:
    assert segment(*NEEDED) == SegmentConfig(input=("a",), output="b", segmenter="plain")


@pytest.mark.parametrize("verb", ["segment", "pseudo-label"])
def test_without_a_net_it_says_in_five_lines_what_to_choose(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default was a net for generated scenes: the first command of a newcomer made meaningless masks."""
    (file := tmp_path / "run.yaml").write_text("lanes: 4\n")
    for argv in (NEEDED[:4], ["--config", str(file), *NEEDED[:4]], []):
        with pytest.raises(SystemExit) as stop:
            parse(verb, CONFIGS[verb], argv)
        said = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and len(said) == 5, said
        assert said[0].startswith(f"vidseg {verb}: --segmenter: ") and "tiny-face" in said[1]
        assert max(map(len, said)) <= 100
    with pytest.raises(ConfigError, match="--segmenter: say which net"):
        from_dict(CONFIGS[verb], {"input": "a", "output": "b"})


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--scheduler.interval", "abc"], "--scheduler.interval: must be a whole number, got 'abc'\n"),
        (["--limit=2.5"], "--limit: must be a whole number, got '2.5'\n"),
        (["--tta.scales", "1", "y"], "--tta.scales: must be a number, got 'y'\n"),
    ],
)
def test_what_is_no_number_is_told_in_one_sentence(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        segment(*NEEDED, *argv)
    assert stop.value.code == 2 and capsys.readouterr().err == f"vidseg segment: {says}"
    assert segment(*NEEDED, "--budget", "None", "--max_drop", "1e-1").max_drop == 0.1


def test_the_help_names_every_kind_of_segmenter() -> None:
    text = field_texts(SegmentConfig)["segmenter"]
    assert all(name in text for name in (*NETS, *FETCHED, *(f"{p}:" for p in NET_FAMILIES)))


def test_input_may_be_repeated_and_may_be_a_list() -> None:
    assert segment(*NEEDED, "--input", "b", "c", "--input=d").input == tuple("abcd")


@pytest.mark.parametrize("verb", ["status", "compact", "inspect", "export"])
def test_the_run_needs_no_option_where_a_verb_looks_at_one(verb: str) -> None:
    words = ["masks", "--output", "there"] if verb in ("inspect", "export") else ["masks"]
    assert parse(verb, CONFIGS[verb], words).run == "masks"


def test_a_tilde_after_an_equals_sign_is_the_home_that_a_shell_would_make_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Shells leave it as it is there: the doctor looked at a folder of the name ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("doctor", DoctorConfig, ["--output=~/out"]).output == f"{tmp_path}/out"
    (tmp_path / "run.yaml").write_text("lanes: 4\n")
    assert segment("--config=~/run.yaml", *NEEDED, "--weights=~/net.pt").weights == f"{tmp_path}/net.pt"
    (tmp_path / "homely.yaml").write_text("weights: ~/net.pt\ninput: [~/a, ~b]", encoding="utf-8")
    config = segment(f"--config={tmp_path}/homely.yaml", "--output", "o", "--segmenter", "plain")
    assert (config.weights, config.input) == (f"{tmp_path}/net.pt", (f"{tmp_path}/a", "~b"))


@pytest.mark.parametrize(
    ("words", "checks"),
    [
        ("a.mp4 --propagation.self_check false", False),
        ("--propagation.self_check false a.mp4", False),
        ("--propagation.self-check=False a.mp4", False),
        ("--propagation.no_self_check a.mp4", False),
        ("--propagation.self_check true a.mp4 --dry_run false", True),
    ],
)
def test_a_switch_may_be_said_as_in_a_file(words: str, checks: bool) -> None:
    """`false` was taken for one more video, and the self-check stayed on."""
    config = parse("segment", SegmentConfig, ["--output", "o", "--segmenter", "plain", *words.split()])
    assert config.input == ("a.mp4",) and config.propagation.self_check is checks and not config.dry_run


def test_dashes_and_underscores_are_the_same() -> None:
    config = segment(*NEEDED, "--scheduler.max-interval", "30", "--dry-run", "--segment_frames", "0")
    assert (config.scheduler.max_interval, config.dry_run, config.segment_frames) == (30, True, 0)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "input: [x, y]\noutput: there\nsegmenter: plain\nlanes: 4\n"
        "scheduler: {name: fixed, interval: 25}\ndry_run: true\n"
    )
    config = segment("--config", str(file), "--input", "z", "--scheduler.interval=5", "--no-dry-run")
    assert config.input == ("z",) and config.output == "there" and config.lanes == 4
    assert (config.scheduler.name, config.scheduler.interval, config.dry_run) == ("fixed", 5, False)


def test_the_command_line_may_complete_a_file_that_is_not_valid_alone(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("scheduler: {name: fixed, interval: 200}\n")
    config = segment(f"--config={file}", *NEEDED, "--scheduler.max_interval", "300")
    assert config.scheduler.interval == 200


NEEDED_BY: dict[str, list[str]] = {
    "segment": NEEDED,
    "build-episodes": ["--data", "scenes:videos=1", "--output", "out"],
    "train-segmenter": ["--data", "scenes:videos=1", "--output", "out", "--segmenter", "tiny-scenes"],
}


@pytest.mark.parametrize("verb", NEEDED_BY)
def test_an_option_of_regions_without_a_grid_is_refused_with_any_value(
    verb: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """That which it has anyway passed, where every other one was refused."""
    plain, needed = ("--regions.overlap", "16"), NEEDED_BY[verb]
    config_of = partial(parse, verb, CONFIGS[verb])
    with pytest.raises(SystemExit) as stop:
        config_of([*needed, *plain])
    said = "--regions.overlap: .*goes with --regions.grid, such as 2x2"
    assert stop.value.code == 2 and re.search(said, capsys.readouterr().err)
    assert config_of([*needed, *plain, "--regions.grid", "2x2"]).regions.overlap == 16
    (tmp_path / "all.yaml").write_text(config_of(needed).to_yaml(), encoding="utf-8")
    assert config_of(["--config", str(tmp_path / "all.yaml")]) == config_of(needed)


def test_overlap_is_that_of_the_grids_that_the_dial_tries() -> None:
    tried = ("--budget", "0.1", "--calibration.grids", "2x2", "--regions.overlap", "16")
    assert segment(*NEEDED, *tried).regions.overlap == 16


def test_a_dumped_config_is_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    named = ("--scheduler.name", "warp_error", "--scheduler.threshold", "2.5")
    config = segment(*NEEDED, "--working_size", "384x512", *named, "--limit", "3")
    file.write_text(config.to_yaml())
    assert segment("--config", str(file)) == config


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (NEEDED[2:], "--input"),
        ([*NEEDED[:2], *NEEDED[4:]], "--output"),
        ([*NEEDED, "--lane", "3"], "--lanes"),
        ([*NEEDED, "--scheduler.intervall", "3"], "--scheduler.interval"),
        ([*NEEDED, "--lanes", "many"], "--lanes"),
        ([*NEEDED, "--lanes", "0"], "--lanes"),
        ([*NEEDED, "--device", "tpu"], "--device"),
        ([*NEEDED, "--segmenter", "plane"], "did you mean 'plain'"),
        ([*NEEDED, "--config"], "--config"),
        ([*NEEDED, "--config", "missing.yaml"], "missing.yaml"),
        ([*NEEDED, "--config", "a", "--config", "b"], "one file"),
        ([*NEEDED[2:], "--input"], "--input"),
        ([*NEEDED, "--lanes"], "--lanes"),
    ],
)
def test_bad_usage_ends_with_2_and_a_message_on_standard_error(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        segment(*argv)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert says in " ".join(printed.err.replace("│", " ").split()) and not printed.out
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("intput: a", "did you mean 'input'"),
        ("- a\n- b", "must hold a mapping"),
        ("a: [", "is not YAML"),
        ("lanes: x", "lanes: must be a whole number"),
    ],
)
def test_a_bad_file_is_named_with_the_key(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit) as stop:
        segment("--config", str(file), *NEEDED)
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and says in printed and "run.yaml" in printed


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("# nothing yet\n")
    assert segment("--config", str(file), *NEEDED) == segment(*NEEDED)


# help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", CONFIGS)
def test_help_ends_with_0_and_needs_no_other_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(verb, CONFIGS[verb], ["--help"])
    assert stop.value.code == 0 and f"usage: vidseg {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", CONFIGS)
@pytest.mark.parametrize("width", [80, 100, 200])
def test_each_group_of_the_help_fits_one_screen(verb: str, width: int) -> None:
    text = render_help(verb, CONFIGS[verb], width)
    assert max(len(group.splitlines()) for group in text.split("\n\n")) <= 24
    described = text.split("\n\n", 1)[1]
    assert max(map(len, (line for line in described.splitlines() if line.startswith("  ")))) <= width


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_option_says_what_it_is(verb: str) -> None:
    assert [option.name for option in options(CONFIGS[verb]) if not option.text] == []


def test_the_text_under_a_field_is_its_help() -> None:
    assert field_texts(SegmentConfig)["output"] == "folder or s3://bucket/prefix of the run"
