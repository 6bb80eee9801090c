"""Flow nets by name, with seeded or stored weights: `tiny-flow` comes with its own, the others do not.

Invariant: a net that exists has either all of its weights from one file or all of them from a seed, and its
digest says which. Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vidseg_core.models.digest import digest_state
from vidseg_core.models.flow.flownet import FlowNetS, flownet2_s
from vidseg_core.models.flow.raft import Raft
from vidseg_core.models.flow.spynet import SpyNet
from vidseg_core.models.flow.tiny import TinyFlow
from vidseg_core.models.names import unknown_name
from vidseg_core.models.request import seeded
from vidseg_core.models.weights import fit_weights, read_weights

FLOW_NETS: dict[str, Callable[[], nn.Module]] = {
    "tiny-flow": TinyFlow,
    "flownet_s": FlowNetS,
    "flownet2_s": flownet2_s,
    "spynet": SpyNet,
    "raft": Raft,
}
BUNDLED = {"tiny-flow": Path(__file__).parents[1] / "bundled" / "tiny-flow.safetensors"}


@dataclass(frozen=True, kw_only=True)
class FlowNet:
    """A built flow net and where its weights are from."""

    name: str
    net: nn.Module
    digest: str
    """SHA-256 over architecture and weights."""
    trained: bool
    """False: random weights; its flow means nothing, only its speed does."""


def build_flow_net(
    name: str, weights: str | Path | None = None, *, seed: int = 0, bare: bool = False
) -> FlowNet:
    """The net called `name` with the weights of a file, else its bundled ones, else random ones by `seed`.

    `bare`: random weights even where there are bundled ones (to train from scratch). `SegmenterError` for a
    name that nobody knows, and for a file that is not of this architecture.
    """
    if name not in FLOW_NETS:
        raise unknown_name("flow net", name, tuple(FLOW_NETS))
    net = seeded(seed, FLOW_NETS[name])
    file = weights or (None if bare else BUNDLED.get(name))
    if file is not None:
        fit_weights(net, read_weights(file), what=f"flow net {name!r}")
    digest = digest_state(net.state_dict(), {"flow net": name})
    return FlowNet(name=name, net=net.eval(), digest=digest, trained=file is not None)


def frozen(net: nn.Module) -> nn.Module:
    """The net, its weights fixed."""
    return net.requires_grad_(False).eval()


def weights_file(state: Mapping[str, torch.Tensor], name: str, **facts: object) -> bytes:
    """A safetensors file that `build_flow_net(name, file)` takes; equal arguments give equal bytes."""
    from vidseg_core.models.trainable import weights_bytes

    kept = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    return weights_bytes(kept, (), spec=name, **{fact: str(value) for fact, value in facts.items()})
