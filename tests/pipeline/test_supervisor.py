"""Promise: a command whose work is done in a child ends as the child does, whatever becomes of that: its exit
code, a signal passed on, a death that another child makes good, and a word about each.

Why: native code dies of odd frames, and a kernel that is short of memory takes the largest process. Without
Ray nobody else would notice, or go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vidseg_core.kit.interrupts import AGAIN_S

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, subprocess, sys, time
from vidseg_core.kit.interrupts import heard
from vidseg_core.pipeline.supervisor import MOST_DEATHS, supervised

def say(text):
    print("say:", text, flush=True)

{work}

with heard():
    code = supervised(work, say, lambda: say("interrupted"))
assert not set(sys.modules) & {{"torch", "ray", "numpy", "pyarrow"}}
print("end", code, flush=True)
"""


def body_of(work: str) -> str:
    """The function of one `child` with this body."""
    return "def work(child):\n" + "\n".join(f"    {line}" for line in work.strip().splitlines())


def started(work: str) -> subprocess.Popen[str]:
    """A process that supervises `work`, the body of a function of one `child`."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=body_of(work))],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def said(work: str) -> list[str]:
    """The lines that come of it."""
    out, _ = started(work).communicate(timeout=60)
    return out.splitlines()


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_childs(code: int) -> None:
    assert said(f"return {code}") == [f"end {code}"]


def test_a_child_that_dies_is_replaced_by_one_that_knows() -> None:
    work = """
child.begin()
print(child.replaces_another, flush=True)
if len(child._dead) < 2:
    os.kill(os.getpid(), signal.SIGSEGV if child._dead else signal.SIGKILL)
print(*(name in child._dead for name in (*child._dead, child.name)), flush=True)
return 0
"""
    lines = said(work)
    assert lines[0] == "False" and "SIGKILL" in lines[1] and "another goes on" in lines[1]
    assert lines[2] == "True" and "SIGSEGV" in lines[3]
    assert lines[4:] == ["True", "True True False", "end 0"]


def test_an_exit_without_a_word_is_a_death() -> None:
    lines = said("child.begin()\nif not child._dead:\n    os._exit(0)\nreturn 0")
    assert "exit code 0" in lines[0] and lines[1:] == ["end 0"]


def test_one_that_dies_before_it_has_begun_is_not_replaced() -> None:
    lines = said("os.kill(os.getpid(), signal.SIGABRT)")
    assert "failed" in lines[0] and "SIGABRT" in lines[0] and lines[1:] == ["end 1"]


def test_children_that_only_die_come_to_an_end() -> None:
    lines = said("child.begin()\nos._exit(9)")
    assert lines[-1] == "end 1" and "did not get on" in lines[-2] and len(lines) == 41


def test_those_that_get_on_are_replaced_longer() -> None:
    lines = said("child.begin()\nchild.gets_on()\nif len(child._dead) < 60:\n    os._exit(9)\nreturn 0")
    assert lines[-1] == "end 0" and len(lines) == 61


def test_a_process_that_the_dead_one_left_behind_delays_nothing() -> None:
    work = """
child.begin()
if not child._dead:
    left = os.fork()
    if not left:
        os.close(1), os.close(2), time.sleep(300), os._exit(0)
    print(left, flush=True)
    os._exit(9)
return 0
"""
    left, *lines = said(work)
    os.kill(int(left), signal.SIGKILL)  # it is there still
    assert lines[-1] == "end 0"


def test_an_error_is_shown_and_ends_it() -> None:
    lines = said("raise KeyError('what')")
    assert lines[0].startswith("Traceback") and lines[-2:] == ["KeyError: 'what'", "end 1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to", ["process", "group"])
def test_a_signal_reaches_the_child_once(number: signal.Signals, to: str) -> None:
    process = started(
        "child.begin()\n"
        "try:\n    print('up', flush=True)\n    time.sleep(50)\n"
        "except KeyboardInterrupt:\n    print('asked', flush=True)\n"
        "return 1"
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    os.kill(process.pid, number) if to == "process" else os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["asked", "end 1"]


def test_one_that_was_asked_to_end_and_dies_is_not_replaced() -> None:
    process = started(
        "child.begin()\n"
        "try:\n    print('up', flush=True)\n    time.sleep(50)\nexcept KeyboardInterrupt:\n    os._exit(7)"
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["say: interrupted", "end 1"]


ATTEMPT = """
import os, sys
from vidseg_core.cli import attempt
from vidseg_core.cli.verbs import Verb

def work(config, child):
    if not child.replaces_another:
        child.begin()
        os.kill(os.getpid(), 9)
    return 3

Verb.function = lambda verb: work
sys.argv[1:] = ["segment", "--input", sys.argv[1], "--output", "out", "--executor", "local"]
sys.argv += ["--segmenter", "plain"]
attempt.main()
"""


def test_an_attempt_of_a_batch_system_has_a_child_too_and_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPT, str(tmp_path / "clip.mp4")],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "SIGKILL" in done.stderr and done.stderr.count("quarantined (exit code 3); 0 here") == 1


def test_a_kill_is_taken_for_want_of_memory_and_a_crash_for_a_crash() -> None:
    work = """
child.begin()
if len(child._dead) < 2:
    os.kill(os.getpid(), signal.SIGABRT if child._dead else signal.SIGKILL)
print(*(child.fate_of(name) for name in child._dead), child.fate_of("other"), flush=True)
return 0
"""
    program = PROGRAM.replace('{{"torch", "ray", "numpy", "pyarrow"}}', "set()")
    done = subprocess.run(
        [sys.executable, "-c", program.format(work=body_of(work))], cwd=ROOT, text=True, capture_output=True
    )
    assert done.stdout.splitlines()[-2:] == ["no-memory crashed unknown", "end 0"]


def test_a_child_that_hangs_in_native_code_is_killed_once_it_was_asked_twice() -> None:
    """Python's handlers do not run there; `ignored` stands for that."""
    process = started(
        "child.begin()\nfor number in (2, 15):\n    signal.signal(number, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(50)"
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(AGAIN_S + 0.2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=40)
    assert out.splitlines() == ["say: interrupted", "end 1"]


def test_a_child_that_is_ended_as_it_stands_is_not_replaced() -> None:
    lines = said("from vidseg_core.kit import interrupts\nchild.begin()\ninterrupts._ear.end_now()")
    assert lines == ["interrupted", "end 1"]


@pytest.mark.parametrize("odd", [">&-", "signal"])
def test_closed_output_and_ignored_children_change_nothing(odd: str, tmp_path: Path) -> None:
    ignore = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" if odd == "signal" else ""
    close = "import sys; sys.stdout = None\n" if odd == ">&-" else ""
    program = (
        f"{ignore}{close}{PROGRAM.format(work=body_of('child.begin(); return 3'))}raise SystemExit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (3, "")
