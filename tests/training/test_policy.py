"""Promise: REINFORCE follows the gradient of Eq. 3, learns on tables, and is the same run however it is
interrupted or shared out.

Why: a policy gradient with a wrong sign, a biased baseline or a share counted twice still trains to
something, only worse.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.generated_tables import NAMES, generated_table
from tests.episodes.tables import random_table
from vidseg_core.cli import main as cli
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.episodes.environment import Environment, EpisodeRules
from vidseg_core.episodes.even import even_loss, even_price
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.rollout import batch_random, roll_out, sampled, start_random
from vidseg_core.episodes.store import write_table
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.episodes.walk import with_features
from vidseg_core.models.policy import PACE, Policy
from vidseg_core.models.policy_file import PolicyFacts, policy_bytes, policy_digest, read_policy
from vidseg_core.models.policy_trunk import MapTrunk, PolicyError
from vidseg_core.store.objects import open_store
from vidseg_core.training.decision_loop import DecisionOptions, train_decision
from vidseg_core.training.policy_gradient import add_gradients, advantages, weight_of_entropy
from vidseg_core.training.policy_loop import POLICY, PolicyOptions, new_policy, train_policy


@pytest.fixture(scope="module")
def tables() -> TableSet:
    return join_tables(generated(4))


def generated(clips: int) -> list[EpisodeTable]:
    return [generated_table(240, 45, seed=n) for n in range(clips)]


@pytest.fixture(scope="module")
def small() -> TableSet:
    return join_tables([generated_table(60, 30, seed=n) for n in range(2)])


def options(folder: Path, **changes: Any) -> PolicyOptions:
    folder.mkdir(exist_ok=True)
    recipe = ReinforceRecipe(**({"episodes": 24, "batch": 4, "trials": 4} | changes.pop("recipe", {})))
    plain: dict[str, Any] = {"val_every": 3, "save_every": 2, "log_every": 2, "intervals": (10.0, 25.0)}
    plain["episode"] = EpisodeRecipe(frames=60, eta=0.1)
    return PolicyOptions(folder=folder, reinforce=recipe, **(plain | changes))


# the gradient ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credit", ["return", "to_go"])
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_the_expected_gradient_is_that_of_the_expected_return(credit: str, baseline: str) -> None:
    """All walks of a short episode, each with its probability, against the exact derivative of J."""
    tables = join_tables([random_table(4, 3, seed=1)])
    environment = Environment(tables, EpisodeRules(frames=4, eta=1.0, max_interval=3))
    policy = new_policy("light", tables, 0)
    expected = [torch.zeros_like(weight) for weight in policy.parameters()]
    value = torch.zeros(())
    for walk in itertools.product([False, True], repeat=3):
        rollout, log_chance = play(environment, policy, [walk])
        value = value + log_chance[0].exp() * float(rollout.returns_N[0])
        pairs = [[walk]] if baseline == "none" else [[walk, w] for w in itertools.product([0, 1], repeat=3)]
        for pair in pairs:
            rollout, log_chance = play(environment, policy, pair)
            merit_SN = advantages(rollout, len(pair), credit=credit, baseline=baseline, gamma=1.0)
            policy.zero_grad()
            add_gradients(policy, environment, rollout, merit_SN, entropy_weight=0.0)
            chance = float(log_chance.sum().exp())
            for total, weight in zip(expected, policy.parameters(), strict=True):
                assert weight.grad is not None
                total -= chance * weight.grad
    exact = torch.autograd.grad(value, list(policy.parameters()))
    for total, truth in zip(expected, exact, strict=True):
        torch.testing.assert_close(total, truth, atol=2e-5, rtol=1e-3)


def play(environment: Environment, policy: Policy, walks: Any) -> tuple[Any, torch.Tensor]:
    """The walks as given, and the logarithm of their chances; forced keys have no say."""
    environment.reset(np.zeros((1, 2), np.int64), len(walks))
    script = np.array(walks, bool)
    rollout = roll_out(environment, policy.key_rate, lambda seen, rate, at: script[seen.walkers_W, at])
    log_chance = torch.zeros(len(walks))
    for step, walker in np.argwhere(rollout.decided_SN):
        cell = rollout.cells_SN[step, walker]
        state = [environment.deviation(cell)[None], rollout.kar_SN[step, walker][None]]
        state.append(rollout.lkd_SN[step, walker][None])
        logits_2 = policy(*(torch.from_numpy(np.array(part)) for part in state))[0]
        chosen = torch.log_softmax(logits_2, 0)[int(rollout.keys_SN[step, walker])]
        log_chance = log_chance + chosen * torch.nn.functional.one_hot(torch.tensor(walker), len(walks))
    for walker, walk in enumerate(script):
        taken = rollout.keys_SN[:, walker]
        if not np.array_equal(taken & rollout.decided_SN[:, walker], walk & rollout.decided_SN[:, walker]):
            raise AssertionError("the script was not followed")
        skipped = int((~rollout.decided_SN[:, walker]).sum())
        log_chance = log_chance - skipped * math.log(2) * torch.nn.functional.one_hot(
            torch.tensor(walker), len(walks)
        )
    return rollout, log_chance


def test_entropy_alone_makes_the_policy_undecided(tables: TableSet) -> None:
    environment, policy = (
        Environment(tables, EpisodeRules(frames=40, eta=1.0)),
        new_policy("light", tables, 1),
    )
    with torch.no_grad():
        policy.last.bias[0] += 2.0
    environment.reset(environment.draw_starts(start_random(0, 0), 2), 4)
    rollout = roll_out(environment, policy.key_rate, sampled(batch_random(0, 0, range(2), 2, 4, 39), 0.98))
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-2)
    seen = []
    for _ in range(25):
        optimiser.zero_grad()
        nothing = np.zeros_like(rollout.rewards_SN)
        even = weight_of_entropy(1.0, over="mean", walkers=8, decisions=rollout.decisions)
        measured = add_gradients(policy, environment, rollout, nothing, entropy_weight=even)
        optimiser.step()
        seen.append(measured.entropy / measured.decisions)
    assert seen[-1] > seen[0] and seen[-1] > 0.65


@pytest.mark.parametrize("over", ["mean", "sum"])
def test_shares_of_a_batch_add_up(tables: TableSet, over: str) -> None:
    """The gradients of equal shares average to that of the whole batch."""
    environment, policy = (
        Environment(tables, EpisodeRules(frames=50, eta=0.2)),
        new_policy("light", tables, 0),
    )
    starts_B2 = environment.draw_starts(start_random(0, 0), 4)

    def gradient(episodes: range) -> torch.Tensor:
        environment.reset(starts_B2[episodes.start : episodes.stop], 3)
        uniform_SN = batch_random(0, 0, episodes, 4, 3, 49)
        rollout = roll_out(environment, policy.key_rate, sampled(uniform_SN, 0.98))
        merit_SN = advantages(rollout, 3, credit="return", baseline="none", gamma=1.0)
        policy.zero_grad()
        played.append(rollout.decisions)
        decisions = played[-1] if len(episodes) == 4 else played[0] / 2
        weight = weight_of_entropy(0.14, over=over, walkers=3 * len(episodes), decisions=decisions)
        add_gradients(policy, environment, rollout, merit_SN, entropy_weight=weight)
        return torch.cat([w.grad.reshape(-1) for w in policy.parameters() if w.grad is not None])

    played: list[int] = []
    together = gradient(range(4))
    shares = (gradient(range(0, 2)) + gradient(range(2, 4))) / 2
    torch.testing.assert_close(shares, together, atol=1e-5, rtol=1e-3)


# learning -------------------------------------------------------------------------------------------------


def test_the_return_grows_and_the_policy_beats_fixed_intervals_on_other_clips(
    tables: TableSet, tmp_path: Path
) -> None:
    others = join_tables([generated_table(240, 45, seed=n) for n in range(20, 32)])
    recipe = {"episodes": 240, "batch": 8, "trials": 8}
    outcome = train_policy(tables, None, options(tmp_path, recipe=recipe, val_every=1000))
    rows = outcome.rows
    assert np.mean([row["mean_return"] for row in rows[-4:]]) > 1.5 * rows[0]["mean_return"]
    assert rows[-1]["kar"] < rows[0]["kar"]
    operator = Operator(others)
    learned, _ = read_policy(tmp_path / POLICY, role="policy")
    fixed = operator.operate(lambda deviation, kar, lkd: lkd, np.array([8.5, 14.5]))
    learned_quality = operator.quality_at(learned.key_rate, fixed.aki_P.tolist())
    assert np.mean(learned_quality) > np.mean(fixed.quality_P) + 0.005


@pytest.mark.parametrize("kind", ["light", "paced"])
def test_a_run_that_was_interrupted_ends_with_the_same_bytes(
    kind: str, small: TableSet, tmp_path: Path
) -> None:
    chosen: dict[str, Any] = {"kind": kind}
    if kind == "paced":
        chosen["episode"] = EpisodeRecipe(frames=60, eta=1.0, reward="shown", sides="two", interval=8.0)
    calm = train_policy(small, small, options(tmp_path / "calm", **chosen))

    def stop(row: dict[str, Any]) -> None:
        if row["batch"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_policy(small, small, options(tmp_path / "rough", **chosen), watch=stop)
    rough = train_policy(small, small, options(tmp_path / "rough", **chosen))
    files = [(tmp_path / name / POLICY).read_bytes() for name in ("calm", "rough")]
    assert files[0] == files[1]
    assert [row["batch"] for row in rough.rows] == [row["batch"] for row in calm.rows] == [2, 3, 4, 6]


def test_the_operating_points_are_what_the_file_does(small: TableSet, tmp_path: Path) -> None:
    train_policy(small, None, options(tmp_path))
    net, facts = read_policy(tmp_path / POLICY)
    assert [point.target for point in facts.operating_points] == [10.0, 25.0]
    for point in facts.operating_points:
        found = Operator(small).operate(net.key_rate, np.array([point.threshold]))
        assert found.aki_P[0] == point.aki and found.quality_P[0] == point.quality
        assert abs(math.log(point.aki / point.target)) < 0.6


def test_the_decision_net_predicts_quality(small: TableSet) -> None:
    others = join_tables([generated_table(120, 30, seed=30)])
    outcome = train_decision(small, others, DecisionOptions(steps=150, val_every=50))
    spread = float(np.nanstd(others.quality_RL1[:, 1:]))
    assert outcome.best_error is not None and outcome.best_error < 0.5 * spread
    again = train_decision(small, others, DecisionOptions(steps=150, val_every=50))
    assert again.rows == outcome.rows


# paced ----------------------------------------------------------------------------------------------------


def test_an_untrained_paced_policy_is_a_fixed_interval(small: TableSet) -> None:
    policy = new_policy("paced", small, 0, interval=7.5)
    walked = Operator(small).walk(policy.key_rate, np.array([0.5]))
    expected = np.arange(1, 60) % 8 == 0
    assert all(np.array_equal(keys, expected) for keys in walked.keys_SN.T)
    rate = policy.key_rate(small.deviation_RL1F[0, 1:3], np.zeros(2, np.float32), np.array([7.5, 15.0], "f"))
    np.testing.assert_allclose(rate, [0.5, 2**PACE / (1 + 2**PACE)], atol=1e-6)


@pytest.mark.parametrize(("sides", "stride"), [("one", "0"), ("one", "12"), ("two", "1"), ("two", "12")])
def test_a_key_is_priced_at_what_one_more_of_even_keys_gains(sides: Any, stride: str) -> None:
    """Quality falls by the same with each frame, two-sided half as fast: everything can be counted."""
    k, d = np.mgrid[:240, :91]
    exists = k + d < 240
    quality = np.where(exists, 1 - 0.004 * d, np.nan).astype(np.float32)
    two = np.where(exists, np.maximum(d - 1, 0) - 0.001 * d * (d - 1), np.nan).astype(np.float32)
    plain = generated_table(240, 90)
    said = {**plain.fingerprint, "two_sided_stride": stride}
    tables = join_tables(
        [dataclasses.replace(plain, quality_TL1=quality, two_sided_TL1=two, fingerprint=said)]
    )
    slope = 0.002 if sides == "one" else 0.001  # an interval of n frames loses slope * n * (n - 1)
    assert even_loss(tables, 20, sides) == pytest.approx(slope * 19, rel=1e-4)
    assert even_price(tables, 20.0, sides) == pytest.approx(slope * 20**2, rel=0.15)


def test_a_paced_policy_learns_when_to_be_early_or_late(tables: TableSet, tmp_path: Path) -> None:
    others = join_tables([generated_table(240, 45, seed=n) for n in range(20, 28)])
    chosen = PolicyOptions(
        folder=tmp_path,
        kind="paced",
        episode=EpisodeRecipe(frames=90, eta=1.0, reward="shown", interval=12.0),
        reinforce=ReinforceRecipe(
            episodes=160,
            trials=8,
            lr=1e-2,
            epsilon=1.0,
            entropy=0.02,
            credit="to_go",
            baseline="leave_one_out",
        ),
        intervals=(12.0,),
        val_every=1000,
    )
    outcome = train_policy(tables, None, chosen)
    assert np.mean([row["mean_return"] for row in outcome.rows[-3:]]) > outcome.rows[0]["mean_return"]
    learned, facts = read_policy(tmp_path / POLICY, role="policy")
    assert (facts.kind, facts.widths) == ("paced", ())
    operator = Operator(others)
    fixed = operator.operate(lambda deviation, kar, lkd: lkd, np.array([8.5, 14.5]))
    quality = operator.quality_at(learned.key_rate, fixed.aki_P.tolist())
    assert np.mean(quality) > np.mean(fixed.quality_P) + 0.005


def test_a_decision_net_inside_stays_as_it_was_and_is_part_of_the_file(
    tables: TableSet, tmp_path: Path
) -> None:
    piled = join_tables([with_features(part, ["piled"]) for part in generated(4)])
    decision = train_decision(piled, None, DecisionOptions(steps=150)).net
    before = {name: weight.clone() for name, weight in decision.state_dict().items()}
    chosen = options(
        tmp_path,
        kind="paced",
        decision=decision,
        episode=EpisodeRecipe(frames=60, eta=1.0, reward="shown", interval=12.0),
    )
    train_policy(tables, None, chosen)
    learned, facts = read_policy(tmp_path / POLICY, role="policy")
    assert isinstance(learned, Policy) and learned.decision is not None
    assert facts.decision == {"kind": "light", "feature_names": ["piled"], "widths": [64, 32]}
    for name, weight in learned.decision.state_dict().items():
        assert torch.equal(weight, before[name])
    assert policy_bytes(learned, facts) == (tmp_path / POLICY).read_bytes()
    (tmp_path / "bad").write_bytes(policy_bytes(learned, dataclasses.replace(facts, decision={})))
    with pytest.raises(PolicyError, match="its description is damaged"):
        read_policy(tmp_path / "bad")
    digest = policy_digest(tmp_path / POLICY)
    with torch.no_grad():
        learned.decision.last.bias.add_(1e-3)
    (tmp_path / POLICY).write_bytes(policy_bytes(learned, facts))
    assert policy_digest(tmp_path / POLICY) != digest


def test_a_file_without_a_net_inside_reads_as_it_always_did(small: TableSet, tmp_path: Path) -> None:
    """Its digest is part of the fingerprint of runs that are to be continued."""
    train_policy(small, None, options(tmp_path))
    assert b'"decision"' not in (tmp_path / POLICY).read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "dvrl"], "goes with --policy light or paced"),
        (["--features", "piled"], "piled: read by the decision net"),
        (["--features", "no_such"], "no feature 'no_such'"),
    ],
)
def test_features_are_the_policys_or_the_nets(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "tables"))
    for table in generated(3):
        write_table(store, with_features(table, ["piled", "moves"]))
    piled = join_tables([with_features(part, ["piled"]) for part in generated(2)])
    net = train_decision(piled, None, DecisionOptions(steps=2)).net
    facts = PolicyFacts(
        role="decision", kind="light", feature_names=("piled",), widths=net.widths, fingerprint={}
    )
    file = tmp_path / "decision.safetensors"
    file.write_bytes(policy_bytes(net, facts))
    known = ["--tables", str(tmp_path / "tables"), "--output", str(tmp_path / "o"), "--decision", str(file)]
    assert cli.main(["train-policy", *known, "--dry-run", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert cli.main(["train-policy", *known, "--dry-run"]) == 0
    elsewhere = dataclasses.replace(facts, fingerprint={"tables": "others"})
    file.write_bytes(policy_bytes(net, elsewhere))
    assert cli.main(["train-policy", *known, "--dry-run"]) == 2
    assert "made with another tables than --tables" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("episode", "says"),
    [
        (EpisodeRecipe(), "is needed by --policy paced"),
        (EpisodeRecipe(interval=25.0), "goes with --episode.reward shown"),
        (EpisodeRecipe(interval=1.0, reward="shown"), "must be above 1 frame"),
    ],
)
def test_an_interval_goes_with_what_it_prices(episode: EpisodeRecipe, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        TrainPolicyConfig(tables="t", output="o", policy="paced", episode=episode)
    assert error.value.option == "--episode.interval"


def test_a_worthless_key_has_no_price() -> None:
    plain = generated_table(60, 30)
    flat = dataclasses.replace(
        plain, quality_TL1=np.where(np.isnan(plain.quality_TL1), np.nan, np.float32(1))
    )
    with pytest.raises(EpisodeError, match="what a key is worth every 10 frames cannot be found"):
        even_price(join_tables([flat]), 10.0)


# the paper's net ------------------------------------------------------------------------------------------


def test_dvrl_is_the_papers_net() -> None:
    names = [f"conv6_{number}" for number in range(8 * 3 * 3)]
    policy = Policy("dvrl", names, fingerprint={"map_shape": "8,3,3"})
    assert isinstance(policy.trunk, MapTrunk) and policy.trunk.conv0.out_channels == 96
    widths = [layer.out_features for layer in policy.trunk.layers if isinstance(layer, torch.nn.Linear)]
    assert (widths, policy.last.in_features, policy.last.out_features) == ([1024, 1024, 128], 130, 2)
    with pytest.raises(PolicyError, match="does not make the 72 features"):
        Policy("dvrl", names, fingerprint={"map_shape": "8,3,4"})
    with pytest.raises(PolicyError, match="dvrl reads conv6 maps of a flow net, but these tables hold piled"):
        Policy("dvrl", NAMES)


def test_dvrl_learns_from_maps(tables: TableSet, tmp_path: Path) -> None:
    table = random_table(40, 8, features=4)
    maps = dataclasses.replace(table, feature_names=tuple(f"conv6_{n}" for n in range(4)))
    recipe = ReinforceRecipe(episodes=4, batch=2, trials=2)
    chosen = PolicyOptions(
        folder=tmp_path,
        kind="dvrl",
        episode=EpisodeRecipe(frames=20, eta=0.5),
        reinforce=recipe,
        intervals=(3.0,),
    )
    assert train_policy(join_tables([maps]), None, chosen).step == 2
    assert read_policy(tmp_path / POLICY)[1].kind == "dvrl"
