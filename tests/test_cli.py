"""Promise: ``vidseg VERB`` is ``python -m vidseg_core VERB`` and, in a checkout, ``python -m jobs.VERB``;
help is quick; an exit code means one thing.

People put exit codes into scripts, and a verb that needs seconds to say what it takes is not asked again.
"""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidseg_core.cli import main as cli
from vidseg_core.cli import runner
from vidseg_core.cli.next_command import next_command
from vidseg_core.cli.verbs import VERBS
from vidseg_core.config import ConfigError, SegmentConfig
from vidseg_core.config.verbs import CompactConfig

ROOT = Path(__file__).parents[1]


def python(*argv: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if code else []), *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_its_file_which_takes_the_same_words(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: vidseg {verb}" in said
    assert importlib.import_module(f"jobs.{verb.replace('-', '_')}").main(["--help"]) == 0
    assert capsys.readouterr().out == said


def test_all_ways_of_calling_it_agree() -> None:
    ways = [("jobs.status",), ("jobs.cli", "status"), ("vidseg_core", "status")]
    done = [python("-m", *way, "--help") for way in ways]
    assert [each.returncode for each in done] == [0, 0, 0]
    assert len({each.stdout for each in done}) == 1 and "usage: vidseg status" in done[0].stdout


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    code = (
        "import sys; from vidseg_core.cli.main import VERBS, main\n"
        "print([main([v, '--help']) for v in VERBS])\n"
        "print(sorted({'ray', 'torch', 'cv2', 'av', 'pyarrow', 'numpy', 'boto3'} & set(sys.modules)))"
    )
    done = python(code=code)
    assert done.stdout.splitlines()[-2:] == [str([0] * len(VERBS)), "[]"], done.stderr


def test_verbs_that_do_not_say_that_they_load_torch_do_not() -> None:
    code = (
        "import sys; from vidseg_core.cli.verbs import VERBS\n"
        "[verb.function() for verb in VERBS.values() if not verb.imports_torch]\n"
        "print({'ray', 'torch', 'cv2'} & set(sys.modules))"
    )
    assert python(code=code).stdout == "set()\n"


def test_the_package_itself_imports_nothing() -> None:
    done = python(
        code="import sys; before = set(sys.modules); import vidseg_core; print(set(sys.modules) - before)"
    )
    assert done.stdout.strip() == "{'vidseg_core'}"


def test_version_and_list_of_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0 and cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("vidseg 0.") and all(verb in printed for verb in VERBS)
    assert cli.main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"), [("segmnet", "segment"), ("docter", "doctor"), ("exports", "export")]
)
def test_an_unknown_verb_comes_with_the_nearest_one(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([typed]) == 2
    assert f"no verb {typed!r} (did you mean {meant!r}?)" in capsys.readouterr().err


def test_bad_usage_is_2() -> None:
    done = python("-m", "jobs.segment", "--segmenter", "plain", "--input", "a", "--outptu", "b")
    assert done.returncode == 2 and "--output" in done.stderr and not done.stdout


# the next command to type ----------------------------------------------------------------------------------

REQUIRED = {
    "input": "clips",
    "output": "my out",
    "run": "masks",
    "data": "davis:d",
    "tables": "t",
    "space": "s",
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_next_command_of_every_verb_is_one(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidseg_core.config.cli import parse
    from vidseg_core.config.schema import option_types

    def options_of(name: str) -> list[str]:
        needs_net = name in ("segment", "pseudo-label", "train-propagation")
        wanted = {"segmenter": "tiny-face"} if needs_net else {}
        known = option_types(VERBS[name].config_class())
        named = {k: v for k, v in (REQUIRED | wanted).items() if k in known}
        if "data" in named:
            named.pop("input", None)
        return [word for option, value in named.items() for word in (f"--{option}", value)]

    words = options_of(verb)
    config = parse(verb, VERBS[verb].config_class(), words)
    if VERBS[verb].takes_command:
        words += ["--", "segment", "--input", "clips", "--output", "my out"]
    said = shlex.split(next_command(verb, config, words))
    if verb == "report":
        assert said == ["python", "-m", "webbrowser", "my out/index.html"]
        return
    monkeypatch.setattr("vidseg_core.config.segment.check_name", lambda *_: None)  # of nets by other names
    following = parse(said[1], VERBS[said[1]].config_class(), said[2:])
    places = {getattr(config, name, None) for name in ("output", "run")} | {"my out"}
    assert said[1] in ("segment", "demo") or {str(v).strip("(),'") for v in vars(following).values()} & places


def test_after_a_dry_run_it_is_the_same_command_for_real() -> None:
    words = ["--input", "my clips", "--output", "o", "--segmenter", "constant", "--dry-run"]
    config = SegmentConfig(input=("my clips",), output="o", segmenter="constant", dry_run=True)
    real = "vidseg segment --input 'my clips' --output o --segmenter constant"
    assert next_command("segment", config, words) == real
    assert next_command("segment", config, words[:-1]) == f"{real} --no-dry-run", "a file says it"
    secret = next_command("segment", config, ["--input", "https://me:word@films/a.mp4?token=abc"])
    assert "word" not in secret and "abc" not in secret


def test_it_is_said_last_and_only_after_what_went_well(capsys: pytest.CaptureFixture[str]) -> None:
    def ran(code: int, *words: str) -> str:
        words = ("--run", ".", *words)
        runner.run_verb("compact", CompactConfig, lambda _: code, words, then=lambda _: "vidseg status")
        return capsys.readouterr().err

    assert [ran(code) for code in (0, 3)] == ["vidseg compact: next: vidseg status\n"] * 2
    assert ran(1) == ran(2) == ""
    assert json.loads(ran(0, "--log", "json"))["command"] == "vidseg status"


# exit codes of what verbs raise ---------------------------------------------------------------------------


def outcome(error: BaseException | int, *argv: str) -> int:
    def run(_: CompactConfig) -> int:
        if isinstance(error, int):
            return error
        raise error

    return runner.run_verb("compact", CompactConfig, run, ["--run", ".", *argv])


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_verbs_own_code_is_passed_on(code: int) -> None:
    assert outcome(code) == code


def test_what_the_person_can_put_right_is_2_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from vidseg_core.plan.errors import InputError
    from vidseg_core.store.errors import StoreError

    for error in (
        ConfigError("--run", "is odd"),
        InputError("no such file"),
        StoreError("output x: not writable"),
    ):
        assert outcome(error) == 2
        assert capsys.readouterr().err == f"vidseg compact: {error}\n"


def test_a_known_failure_is_1_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from vidseg_core.store.errors import CommitConflict

    assert outcome(CommitConflict("two writers")) == 1
    assert capsys.readouterr().err == "vidseg compact: two writers\n"


def test_a_bug_is_1_with_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ZeroDivisionError("oops")) == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed and printed.endswith("vidseg compact: failed: ZeroDivisionError: oops\n")


def test_an_interrupt_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(KeyboardInterrupt()) == 1
    assert "interrupted" in capsys.readouterr().err


def test_messages_are_json_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ConfigError("--run", "is odd"), "--log", "json") == 2
    line: dict[str, Any] = json.loads(capsys.readouterr().err)
    assert line == {"event": "error", "verb": "compact", "message": "--run: is odd"}
