"""Trained policies and decision nets on disk: one `.safetensors` file with all that its use needs.

Invariant: the metadata (JSON under `vidseg.policy`) says what the net reads, how it was trained and at which
thresholds it makes which key interval; the digest covers weights and metadata that change a decision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save

from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.digest import digest_file, digest_state
from vidseg_core.models.planner import is_planner, planner_digest
from vidseg_core.models.policy import Policy
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.models.propagation_file import is_propagation_file

METADATA = "vidseg.policy"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A threshold and what came of it on the training clips."""

    target: float
    """Average key interval that was asked for, frames."""
    threshold: float
    """On the score: pi(a1 | s) for a policy, 1 - confidence for a decision net."""
    aki: float
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """What a file says of its net."""

    role: Literal["policy", "decision"]
    kind: str
    feature_names: tuple[str, ...]
    widths: tuple[int, ...]
    fingerprint: Mapping[str, str]
    """What the tables were made with."""
    tables: str = ""
    """Digest of the tables it learned from."""
    eta: float | None = None
    history: int = 90
    max_interval: int = 90
    """Forced key interval under which it was trained and its operating points were measured."""
    sides: str = "one"
    seed: int = 0
    operating_points: tuple[OperatingPoint, ...] = field(default=())
    summed_points: tuple[OperatingPoint, ...] = field(default=())
    """Points for a decision net's losses, added up since the key (`confidence_sum`)."""
    decision: Mapping[str, Any] | None = None
    """kind, feature_names and widths of the decision net inside a policy."""

    def threshold_at(self, aki: float, *, summed: bool = False) -> float:
        """The threshold whose measured interval is nearest (in ratio) to `aki`."""
        points = self.summed_points if summed else self.operating_points
        if not points:
            raise PolicyError("this file has no operating points; give a threshold")
        return min(points, key=lambda p: abs(p.aki / aki - 1) + abs(p.target / aki - 1)).threshold


def build_from(facts: PolicyFacts) -> Policy | DecisionNet:
    """A fresh net of this kind."""
    told: dict[str, Any] = {"fingerprint": facts.fingerprint, "widths": facts.widths}
    if facts.role == "decision":
        return DecisionNet(facts.kind, facts.feature_names, **told)
    return Policy(facts.kind, facts.feature_names, **told, decision=_decision_of(facts))


_OF_DECISION = ("kind", "feature_names", "widths")


def decision_facts(decision: DecisionNet | None) -> dict[str, Any] | None:
    """How `PolicyFacts` describe the decision net inside a policy."""
    if decision is None:
        return None
    return {name: getattr(decision, name) for name in _OF_DECISION}


def _decision_of(facts: PolicyFacts) -> DecisionNet | None:
    if facts.decision is None:
        return None
    about = facts.decision
    return DecisionNet(
        about["kind"], about["feature_names"], fingerprint=facts.fingerprint, widths=about["widths"]
    )


def _described(facts: PolicyFacts) -> dict[str, Any]:
    """The facts as they are written; a policy without a net inside reads as it always did."""
    return {name: value for name, value in asdict(facts).items() if (name, value) != ("decision", None)}


def policy_bytes(net: Policy | DecisionNet, facts: PolicyFacts) -> bytes:
    """The file; equal nets and facts have equal bytes."""
    state = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    return save(state, {METADATA: json.dumps({"version": VERSION} | _described(facts), sort_keys=True)})


def read_policy(path: str | Path, role: str | None = None) -> tuple[Policy | DecisionNet, PolicyFacts]:
    """The net (eval mode, frozen) and its facts; `PolicyError` for any file that is not such a one.

    `role`: policy or decision, whichever is wanted; None: either.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise PolicyError(f"policy file {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(METADATA)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"policy file {path} is not a readable safetensors file: {error}") from error
    if said is None:
        raise PolicyError(f"{path} holds no policy; train-policy and train-decision write such files")
    facts = _facts(path, said)
    if role is not None and facts.role != role:
        verb = {"policy": "train-policy", "decision": "train-decision"}
        raise PolicyError(f"{path} comes from {verb[facts.role]}, but one of {verb[role]} is needed")
    net = build_from(facts)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise PolicyError(f"{path}: the weights do not fit a {facts.kind} {facts.role} net") from error
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise PolicyError(f"{path} holds weights that are not numbers")
    return net.eval().requires_grad_(False), facts


def policy_digest(path: str | Path) -> str:
    """Hex SHA-256 of what decides: weights, inputs and, through its facts, the default threshold. Of a file
    of train-planner or train-propagation too."""
    if is_planner(path):
        return planner_digest(path)
    if is_propagation_file(path):
        return digest_file(Path(path))
    net, facts = read_policy(path)
    return digest_state(net.state_dict(), json.loads(json.dumps(_described(facts))))


def _facts(path: Path, said: str) -> PolicyFacts:
    try:
        values: dict[str, Any] = json.loads(said)
        if values.pop("version") != VERSION:
            raise PolicyError(f"{path} was written by another version of vidseg; train it again")
        for name in ("operating_points", "summed_points"):
            values[name] = tuple(OperatingPoint(**point) for point in values.get(name, ()))
        for name in ("feature_names", "widths"):
            values[name] = tuple(values[name])
        if values.get("decision") is not None:
            values["decision"] = {name: values["decision"][name] for name in _OF_DECISION}
        if values["role"] not in ("policy", "decision"):
            raise PolicyError(f"{path} holds a net with the unknown role {values['role']!r}")
        return PolicyFacts(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"{path}: its description is damaged ({error})") from error
