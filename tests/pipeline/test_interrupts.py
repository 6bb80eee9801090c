"""Promise: a command that is asked to end (SIGTERM, Ctrl-C) drains or ends with one sentence and exit code 1.

`timeout` and `uv run` send each signal twice, and the second one broke into the end of the first with a
traceback. Where Ray had been ended by the same signal, the driver waited a minute for it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vidseg_core.kit import interrupts
from vidseg_core.kit.interrupts import asked_to_end, drains, heard

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("interrupt", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_is_ctrl_c_inside_and_what_it_was_before_outside(interrupt: object) -> None:
    before, ours = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, interrupt)  # type: ignore[arg-type]
    try:
        with heard(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGINT, ours)
    assert signal.getsignal(signal.SIGTERM) == before and not asked_to_end()


def test_a_signal_that_is_sent_twice_asks_once() -> None:
    asked: list[bool] = []
    with heard(), drains(lambda: asked.append(True)):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert asked == [True] and not asked_to_end()


def test_two_at_the_very_same_moment_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler of the second ran within that of the first, which went on as if it were the second."""
    start = threading.Thread.start

    def twice(thread: threading.Thread) -> None:
        signal.raise_signal(signal.SIGTERM)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", twice)
    asked: list[bool] = []
    with heard(), drains(lambda: asked.append(True)):
        signal.raise_signal(signal.SIGTERM)
    assert asked == [True] and not asked_to_end()


def test_a_second_one_later_interrupts_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "AGAIN_S", 0.0)
    asked: list[bool] = []
    with drains(lambda: asked.append(True)):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert asked_to_end()
    assert asked == [True]


def test_ctrl_c_does_not_drain() -> None:
    with drains(lambda: pytest.fail("it drains")), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


# ends that the process does not survive --------------------------------------------------------------------


def ended(work: str) -> tuple[int, str]:
    """Exit code and standard error of a process that does `work` where it is heard."""
    program = (
        "import os, signal, subprocess, sys, time\n"
        "from vidseg_core.kit import interrupts\n"
        "words = lambda: print('last words', file=sys.stderr)\n"
        "ask = lambda: signal.raise_signal(signal.SIGTERM)\n"
        f"{work}\n"
        "time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    return done.returncode, done.stderr


def test_a_later_signal_ends_what_is_ending_with_its_children() -> None:
    code, errors = ended(
        "interrupts.AGAIN_S = 0\n"
        "with interrupts.heard(words):\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        "    print(child.pid, file=sys.stderr, flush=True)\n"
        "    try: ask()\n"
        "    finally: ask()"
    )
    child, _, words = errors.partition("\n")
    assert (code, words) == (1, "last words\n")
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_one_whose_ray_was_ended_with_it_does_not_wait_for_its_drain() -> None:
    code, errors = ended(
        "stack = [interrupts.heard(words), interrupts.standing_on(lambda: False)]\n"
        "stack += [interrupts.drains(lambda: None)]\n"
        "for block in stack: block.__enter__()\n"
        "ask()"
    )
    assert (code, errors) == (1, "last words\n")


def test_one_where_nobody_hears_the_interrupt_ends_all_the_same() -> None:
    code, errors = ended(
        "interrupts.CLEANUP_S = 0\n"
        "with interrupts.heard(words):\n"
        "    try: ask()\n"
        "    except KeyboardInterrupt: time.sleep(60)"
    )
    assert (code, errors) == (1, "last words\n")


def test_an_interrupt_that_is_lost_is_raised_again_without_a_word() -> None:
    """Raised where nothing can be raised, here in a finaliser, as in the callbacks of FFmpeg's writers."""
    code, errors = ended(
        "class Loses:\n"
        "    def __del__(self): ask()\n"
        "with interrupts.heard(words):\n"
        "    Loses()\n"
        "    try: time.sleep(40)\n"
        "    except KeyboardInterrupt: sys.exit('heard')"
    )
    assert (code, errors) == (1, "heard\n")


def test_after_the_verb_a_signal_changes_no_exit_code() -> None:
    assert ended("with interrupts.heard(words): pass\ninterrupts.end_with(3)\nask()") == (3, "")


def test_a_verb_says_what_stays(tmp_path: Path) -> None:
    """Of a process: `vidseg_core.cli.runner` hears from the first line on."""
    program = (
        "import os, signal, sys\n"
        "from vidseg_core.cli import runner\n"
        "from vidseg_core.kit import interrupts\n"
        "from vidseg_core.config.verbs import CompactConfig\n"
        "def run(config): os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "end = interrupts.end_with\n"
        "raise SystemExit(runner.run_verb('compact', CompactConfig, run, sys.argv[1:], ends=end))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--run", "."], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1
    assert (
        done.stderr == "vidseg compact: interrupted; what is merged stays; the same command merges the rest\n"
    )
