"""Flow nets by name, with seeded or stored weights: `tiny-flow` comes with its own, the others do not.

Invariant: a net that exists has either all of its weights from one file or all of them from a seed, and its
digest says which. Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vidseg_core.config.catalogue import FLOWS, NET_FLOWS, SCALED_FLOWS
from vidseg_core.models.digest import digest_state
from vidseg_core.models.flow.published import take_way, under_our_names
from vidseg_core.models.protocol import SegmenterError, unknown_name
from vidseg_core.models.request import seeded
from vidseg_core.models.weights import WeightsFile, fit_weights, read_weights
from vidseg_core.registry import load

SCALE_KEYS = "scale.by."
"""What the names of its weights begin with; the level follows."""
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
    scale_level: str | None = None
    """`scores` or `features` if the net has a scale field for those (DFF section 3)."""


def build_flow_net(
    name: str,
    weights: str | Path | None = None,
    *,
    seed: int = 0,
    bare: bool = False,
    scale: tuple[str, int] | None = None,
) -> FlowNet:
    """The net called `name` with the weights of a file, else its bundled ones, else random ones by `seed`.

    `bare`: random weights even where there are bundled ones (to train from scratch). `scale`: level and
    channels of a scale field to train; None: as the file has it. `SegmenterError` for a name that nobody
    knows, and for a file that is not of this architecture.
    """
    if name not in NET_FLOWS:
        raise unknown_name("flow net", name, NET_FLOWS)
    net = seeded(seed, load(FLOWS[name].net))
    file = weights or (None if bare else BUNDLED.get(name))
    content = None if file is None else under_our_names(read_weights(file), net)
    there = None if content is None else _scale_in(content)
    if (scale or there) and FLOWS[name].scaled:
        level, channels = scale or there  # type: ignore[misc]
        net.add_scale(channels, level)  # type: ignore[operator]
    elif scale:
        raise SegmenterError(f"flow net {name!r} cannot have a scale field; {', '.join(SCALED_FLOWS)} can")
    if content is not None:
        take_way(net, content.state)
        if scale and not there:  # a flow net whose scale field begins here, at 1
            fresh = {key: value for key, value in net.state_dict().items() if key.startswith(SCALE_KEYS)}
            content = replace(content, state={**content.state, **fresh})
        fit_weights(net, content, what=f"flow net {name!r}")
    digest = digest_state(net.state_dict(), {"flow net": name})
    level = (scale or there or (None,))[0]
    return FlowNet(name=name, net=net.eval(), digest=digest, trained=file is not None, scale_level=level)


def _scale_in(content: WeightsFile) -> tuple[str, int] | None:
    """Level and channels of the scale field that a file holds weights for."""
    for key, value in content.state.items():
        if key.startswith(SCALE_KEYS) and key.endswith(".weight") and value.ndim == 4:
            return key.removeprefix(SCALE_KEYS).removesuffix(".weight"), int(value.shape[0])
    return None


def frozen(net: nn.Module) -> nn.Module:
    """The net, its weights fixed."""
    return net.requires_grad_(False).eval()


def weights_file(state: Mapping[str, torch.Tensor], name: str, **facts: object) -> bytes:
    """A safetensors file that `build_flow_net(name, file)` takes; equal arguments give equal bytes."""
    from vidseg_core.models.trainable import weights_bytes

    kept = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    return weights_bytes(kept, (), spec=name, **{fact: str(value) for fact, value in facts.items()})
