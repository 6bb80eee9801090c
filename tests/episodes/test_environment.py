"""Promise: the vectorised environment plays DVRL's episodes (section 3.2), walker by walker as the plain
reference does: same states, rewards and stops, whatever is played beside."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.episodes.plain_environment import walk_plainly
from tests.episodes.tables import random_table
from vidseg_core.episodes.environment import Environment, EpisodeRules
from vidseg_core.episodes.gym_env import KeyFrameEnv
from vidseg_core.episodes.rollout import Rollout, batch_random, roll_out, sampled, start_random
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_set import join_tables

EPSILON = 0.98


def key_rate(deviation_WF: np.ndarray, kar_W: np.ndarray, lkd_W: np.ndarray) -> np.ndarray:
    """Any policy will do that depends on all parts of the state; sometimes it is all but sure."""
    drive_W = deviation_WF.sum(axis=1) + 0.3 * lkd_W - 4.0 * kar_W
    return 1.0 / (1.0 + np.exp(-6.0 * (drive_W.astype(np.float64) - 1.2)))


def play(tables: list[EpisodeTable], rules: EpisodeRules, trials: int, seed: int) -> tuple[Rollout, Any, Any]:
    environment = Environment(join_tables(tables), rules)
    starts_B2 = environment.draw_starts(start_random(seed, 0), 3)
    uniform_SN = batch_random(seed, 0, range(3), 3, trials, rules.frames - 1)
    environment.reset(starts_B2, trials)
    return roll_out(environment, key_rate, sampled(uniform_SN, EPSILON)), starts_B2, uniform_SN


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.integers(2, 24), min_size=1, max_size=3),
    length=st.integers(2, 15),
    eta=st.sampled_from([0.3, 0.5, 0.75, 1.0]),
    history=st.sampled_from([4, 7, 90]),
    interval=st.sampled_from([None, 4, 5]),
    reward=st.sampled_from([("gain", "one"), ("shown", "one"), ("shown", "two")]),
    price=st.sampled_from([0.0, 0.7]),
    unknown=st.booleans(),
    stride=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 10_000),
)
def test_every_walker_walks_as_the_equations_say(
    frames: list[int],
    length: int,
    eta: float,
    history: int,
    interval: int | None,
    reward: tuple[Any, Any],
    price: float,
    unknown: bool,
    stride: int,
    seed: int,
) -> None:
    tables = [thinned(random_table(n, 6, seed=seed + i, clip=f"c{i}"), stride) for i, n in enumerate(frames)]
    if unknown:
        tables = [without_some_truth(table) for table in tables]
    rules = EpisodeRules(
        frames=length,
        eta=eta,
        history=history,
        max_interval=interval,
        reward=reward[0],
        sides=reward[1],
        price=price,
    )
    forced = math.ceil(min(history, length) / ((interval or 6) // stride * stride))
    assume(forced <= rules.most_keys(np.array(length)))
    rollout, starts_B2, uniform_SN = play(tables, rules, 2, seed)
    for walker in range(6):
        table, start = starts_B2[walker // 2]

        def decide(step: int, state: Any, walker: int = walker) -> bool:
            rate = float(key_rate(*(np.array([part], np.float32) for part in state))[0])
            rate = min(max(rate, 1 - EPSILON), EPSILON)
            return bool(uniform_SN[step - 1, walker] < rate)

        plain = walk_plainly(tables[table], int(start), rules, decide)
        steps = len(plain.rewards)
        assert rollout.length_N[walker] == steps
        assert rollout.keys_SN[:steps, walker].tolist() == plain.keys[1:]
        assert not rollout.keys_SN[steps:, walker].any()
        np.testing.assert_allclose(rollout.rewards_SN[:steps, walker], plain.rewards, atol=1e-5)
        assert not rollout.rewards_SN[steps:, walker].any()
        assert rollout.decided_SN[:steps, walker].tolist() == [state is not None for state in plain.states]
        for step, state in enumerate(plain.states):
            if state is not None:
                assert rollout.kar_SN[step, walker] == np.float32(state[1])
                assert rollout.lkd_SN[step, walker] == state[2]


def thinned(table: EpisodeTable, stride: int) -> EpisodeTable:
    """Only every so many frames may be key; nothing is known of the others after d = 0."""
    quality, deviation = table.quality_TL1.copy(), table.deviation_TL1F.copy()
    not_key = np.arange(table.frames) % stride > 0
    quality[not_key, 1:], deviation[not_key, 1:] = np.nan, np.nan
    about = {**table.fingerprint, "key_stride": str(stride)}
    return dataclasses.replace(table, quality_TL1=quality, deviation_TL1F=deviation, fingerprint=about)


def without_some_truth(table: EpisodeTable) -> EpisodeTable:
    """Every third frame has no label: nothing is known of it, whatever its key."""
    quality = table.quality_TL1.copy()
    frame = np.arange(table.frames)[:, None] + np.arange(table.horizon + 1)[None]
    quality[frame % 3 == 1] = np.nan
    return dataclasses.replace(table, quality_TL1=quality)


@pytest.mark.parametrize(("eta", "keys"), [(0.04, 1), (0.06, 1), (0.14, 4)])
@pytest.mark.parametrize("frames", [30, 40])
def test_a_snippet_is_held_to_the_ratio_that_was_asked_for(eta: float, keys: int, frames: int) -> None:
    """Compared with a history of 90 frames, snippets of 30 were let through with three times as many keys.

    `frames`: of the clip; a snippet in a longer one, or a clip that is no longer than that."""
    rules = EpisodeRules(frames=90 if frames == 30 else 30, eta=eta)
    environment = Environment(join_tables([random_table(frames, 90)]), rules)
    environment.reset(np.zeros((1, 2), np.int64), 1)
    while environment.observe() is not None:
        environment.step(np.ones(1, bool))
    assert environment.keys_NM.sum() == keys + 1  # the one that exceeds ends it


@pytest.mark.parametrize(("eta", "keys"), [(0.06, 1), (0.14, 4)])
def test_a_forced_key_near_the_end_of_a_snippet_counts_as_any_other(eta: float, keys: int) -> None:
    """Of 30 frames, of which the 25th is key if none was before: whoever reaches the end has no more keys
    than eta allows, and whoever does not is stopped by the one key beyond them. (.04 is refused here.)"""
    environment = Environment(join_tables([random_table(30, 24)]), EpisodeRules(frames=90, eta=eta))
    environment.reset(np.zeros((1, 2), np.int64), 400)
    chance, rarely_N = np.random.default_rng(0), np.linspace(0.0, 0.3, 400)
    while (seen := environment.observe()) is not None:
        environment.step(chance.random(len(seen.walkers_W)) < rarely_N[seen.walkers_W])
    found_N = environment.keys_NM.sum(axis=1)
    assert found_N.max() == keys + 1 and keys / 30 <= eta < (keys + 1) / 30
    stopped_N = found_N == keys + 1
    assert environment.keys_NM[0, 24] and stopped_N[0] == (keys == 1)  # it never wants a key
    assert not environment.keys_NM[0, 25:].any() and (keys == 1) == stopped_N.all()


def test_the_defaults_are_the_papers() -> None:
    rules = EpisodeRules()
    assert (rules.frames, rules.history, rules.reward, rules.sides) == (270, 90, "gain", "one")


def test_walks_do_not_depend_on_who_walks_beside() -> None:
    tables = join_tables([random_table(40, 8, seed=n, clip=f"c{n}") for n in range(3)])
    rules = EpisodeRules(frames=30, eta=0.3, history=20)
    environment = Environment(tables, rules)
    starts_B2 = environment.draw_starts(start_random(5, 3), 4)

    def rewards_of(episodes: range) -> np.ndarray:
        environment.reset(starts_B2[episodes.start : episodes.stop], 3)
        uniform_SN = batch_random(5, 3, episodes, 4, 3, rules.frames - 1)
        rewards_SN = roll_out(environment, key_rate, sampled(uniform_SN, EPSILON)).rewards_SN
        return np.pad(rewards_SN, ((0, rules.frames - 1 - len(rewards_SN)), (0, 0)))

    halves = [rewards_of(range(0, 2)), rewards_of(range(2, 4))]
    assert np.array_equal(np.hstack(halves), rewards_of(range(4)))


def test_starts_leave_room_for_a_whole_episode() -> None:
    tables = join_tables([random_table(12, 4, clip="a"), random_table(5, 4, clip="short")])
    environment = Environment(tables, EpisodeRules(frames=10, eta=1.0))
    starts_B2 = environment.draw_starts(np.random.default_rng(0), 400)
    assert {tuple(start) for start in starts_B2.tolist()} == {(0, 0), (0, 1), (0, 2), (1, 0)}


def test_no_action_is_drawn_with_more_than_epsilon() -> None:
    tables = join_tables([random_table(3, 2)])
    environment = Environment(tables, EpisodeRules(frames=2, eta=1.0))
    environment.reset(np.zeros((1, 2), np.int64), 4000)
    uniform_SN = batch_random(1, 0, range(1), 1, 4000, 1)
    rollout = roll_out(environment, lambda deviation, kar, lkd: np.ones(len(kar)), sampled(uniform_SN, 0.9))
    assert 0.88 < rollout.keys_SN.mean() < 0.92


# bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (EpisodeRules(eta=0.01), "no schedule can meet eta 0.01: of 90 frames it allows 1"),
        (EpisodeRules(eta=0.06), "allows 5 key.s., but a key every 6 frames at the latest makes 15"),
        (EpisodeRules(eta=1.0, max_interval=7), "distances from 1 to 6 only"),
        (EpisodeRules(eta=1.0, sides="two"), "need shown"),
    ],
)
def test_rules_that_cannot_be_played_are_named(rules: EpisodeRules, says: str) -> None:
    with pytest.raises(EpisodeError, match=says):
        Environment(join_tables([random_table(100, 6)]), rules)


def test_tables_that_do_not_go_together_are_named() -> None:
    whole = random_table(9, 4)
    other = dataclasses.replace(random_table(9, 4, clip="b"), fingerprint={"segmenter": "another"})
    with pytest.raises(EpisodeError, match="clip b, segment 0: made with another horizon, segmenter"):
        join_tables([whole, other])
    blind = dataclasses.replace(whole, quality_TL1=np.full_like(whole.quality_TL1, np.nan))
    with pytest.raises(EpisodeError, match="no frame has a known quality"):
        join_tables([blind])
    with pytest.raises(EpisodeError, match="has 1 frame"):
        join_tables([random_table(1, 4)])
    thinned = whole.deviation_TL1F.copy()
    thinned[3, 1:] = np.nan
    with pytest.raises(EpisodeError, match="nothing is known of frame 4 after key 3"):
        join_tables([dataclasses.replace(whole, deviation_TL1F=thinned)])


# gymnasium ------------------------------------------------------------------------------------------------


def test_gymnasium_finds_nothing_wrong() -> None:
    environment = KeyFrameEnv([random_table(20, 6)], EpisodeRules(frames=10, eta=0.5, history=10))
    assert isinstance(environment, gymnasium.Env)
    check_env(environment, skip_render_check=True)


def test_an_episode_in_gymnasium_is_the_plain_one() -> None:
    table, rules = random_table(20, 6, seed=2), EpisodeRules(frames=12, eta=0.5, history=8)
    environment = KeyFrameEnv([table], rules)
    seen, about = environment.reset(seed=4)
    rewards, ended = [], False
    while not ended:
        action = np.int64(seen["deviation"][0] > 0.5)
        seen, reward, terminated, truncated, _ = environment.step(action)
        rewards.append(reward)
        ended = terminated or truncated
    plain = walk_plainly(table, about["start"], rules, lambda step, state: state[0][0] > 0.5)
    np.testing.assert_allclose(rewards, plain.rewards, atol=1e-6)
