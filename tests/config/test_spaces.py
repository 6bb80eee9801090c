"""Promise: a search space that loads can be searched: no draw of it is refused by the job.

A trial that dies on a value costs the whole search its time, so bounds are tried when the file is read.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vidseg_core.config import ConfigError
from vidseg_core.config.spaces import load_spaces, nested

FOLDER = Path(__file__).parents[2] / "tune_spaces"


def load(tmp_path: Path, text: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    load_spaces(file)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_draw_of_the_shipped_spaces_is_a_valid_config(file: Path) -> None:
    rng = random.Random(0)
    for space in load_spaces(file).values():
        for _ in range(50):
            point = space.sample(rng)
            for parameter in space.parameters:
                value = point[parameter.option]
                assert value in parameter.choices or parameter.low <= value <= parameter.high
            if space.verb == "segment":
                config = space.config(point, input=("clips",), output="run")
                assert config.scheduler.name == space.fixed["scheduler.name"]
            else:
                assert space.trial(point).policy == space.fixed["policy"]


def test_a_name_is_a_file_of_the_package_and_a_file_that_is_there_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(load_spaces("policies")) == list(load_spaces(FOLDER / "policies.yaml"))
    (tmp_path / "policies").write_text("own: {vary: {scheduler.interval: {int: [1, 2]}}}")
    assert list(load_spaces("policies")) == ["own"]
    with pytest.raises(
        ConfigError, match="--space: there is no file policy.*in the package: policies, schedulers"
    ):
        load_spaces("policy")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_spaces("spaces/policies")


def test_draws_are_reproducible() -> None:
    space = load_spaces(FOLDER / "schedulers.yaml")["warp_error"]
    assert space.sample(random.Random(3)) == space.sample(random.Random(3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {vary: {scheduler.intervall: {int: [1, 2]}}}", "did you mean 'scheduler.interval'"),
        ("a: {vary: {output: {choice: [x]}}}", "is not an option of segment that a search can set"),
        ("a: {vary: {lanes: {int: [0, 4]}}}", "lanes: must be a whole number between 1 and 256"),
        ("a: {vary: {scheduler.threshold: {float: [9, 1]}}}", "low < high"),
        ("a: {vary: {scheduler.threshold: {float: [0, 1], scale: log}}}", "log scale begins above 0"),
        ("a: {vary: {scheduler.interval: {int: [1.5, 3]}}}", "int must be [low, high]"),
        ("a: {vary: {propagation.sides: {choice: [one, three]}}}", "propagation.sides: must be one of"),
        ("a: {vary: {lanes: [1, 2]}}", "must be {int: [low, high]}"),
        ("a: {vary: {}}", "at least one"),
        ("a: {vary: {lanes: {int: [1, 2]}}, fix: {}}", "did you mean 'fixed'"),
        ("a: {fixed: {scheduler.name: fixed}, vary: {scheduler.threshold: {float: [1, 2]}}}", "no threshold"),
        (
            "a: {vary: {scheduler.name: {choice: [fixed, warp_error]}, scheduler.interval: {int: [12, 90]}}}",
            "scheduler.interval: goes with fixed, random",
        ),
        ("{}", "holds no space"),
    ],
)
def test_a_bad_space_is_refused_by_file_and_option(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value) and "space.yaml" in str(caught.value)


def test_dotted_names_become_nested_keys() -> None:
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
