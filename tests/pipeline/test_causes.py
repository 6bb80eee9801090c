"""Promise: an error of ours that was raised in a worker reads as it was raised, in one sentence.

Why: Ray's wrappers are instances of what they wrap, so their message, a traceback, was printed as if it were
ours; and Ray Data writes advice into the message itself.
"""

from __future__ import annotations

import pytest
from ray.data._internal.util import iterate_with_retry
from ray.exceptions import RayTaskError, UserCodeException

from vidseg_core.cli.runner import run_verb
from vidseg_core.config.verbs import CompactConfig
from vidseg_core.kit.explain import message, raised
from vidseg_core.store.errors import WriteError

SENTENCE = "cannot write run/x: No space left on device"


def _in_user_code() -> Exception:
    try:
        try:
            raise WriteError(SENTENCE)
        except WriteError as error:
            raise UserCodeException("UDF failed to process a data block.") from error
    except UserCodeException as error:
        return error


WRAPPED = {
    "nothing": lambda: WriteError(SENTENCE),
    "a task": lambda: RayTaskError("f", "Traceback ...", WriteError(SENTENCE)).as_instanceof_cause(),
    "a function of Ray Data": lambda: RayTaskError("f", "Traceback", _in_user_code()).as_instanceof_cause(),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_an_error_of_a_worker_reads_as_it_was_raised(
    wrapping: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: CompactConfig) -> int:
        raise WRAPPED[wrapping]()

    assert run_verb("compact", CompactConfig, run, ["--run", "."]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"vidseg compact: {SENTENCE}") and said.count("\n") == 1


def test_rays_advice_is_not_part_of_the_message() -> None:
    def items() -> list[int]:
        raise WriteError(SENTENCE)

    with pytest.raises(WriteError) as caught:
        list(iterate_with_retry(items, "apply UDF transform", max_attempts=1))
    assert "total backoff" in str(caught.value) and message(raised(caught.value)) == SENTENCE
