"""A segmenter's net as a module to train, and its weights in the form that `build_segmenter` reads.

Model: the net is the one that inference runs, `head(features(frames))` with its own normalisation and
padding, so that what is trained is what is used. Invariant: `weights_bytes(weights_of(net), ...)` in a file
is fitted completely by `build_segmenter(spec, weights=...)`, and gives the same scores.

Shape suffixes: B batch, C classes, H W the frame's rows and columns, 3 = RGB.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.config.nets import FETCHED
from vidseg_core.models.geometry import pad_to_multiple
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.split import SplitNet, SplitSegmenter
from vidseg_core.models.weights import fit_weights, read_weights


class TrainableNet(nn.Module):
    """N in one piece with gradients; `forward(frames_B3HW in 0..1)` gives scores_BCHW at the frames' size."""

    def __init__(
        self, net: SplitNet, *, spec: str, class_names: Sequence[str], trained: bool = False
    ) -> None:
        """`trained`: its weights are no random ones."""
        super().__init__()
        self.trained = trained
        self.net = net.requires_grad_(True).train()
        self.spec = spec
        self.class_names = tuple(class_names)
        mean, std = torch.tensor(net.mean), torch.tensor(net.std)
        self.register_buffer("mean_1311", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale_1311", 1.0 / std.view(1, 3, 1, 1), persistent=False)

    def forward(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        """Class scores, float32."""
        return self.features_and_scores(frames_B3HW)[1]

    def features_and_scores(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The (finest) feature map, of the padded frames, and the class scores, float32."""
        rows, columns = frames_B3HW.shape[2:]
        normal = (frames_B3HW - self.get_buffer("mean_1311")) * self.get_buffer("scale_1311")
        padded = pad_to_multiple(normal, self.net.multiple)
        maps = self.net.encode(padded)
        scores = self.net.decode(maps).float()
        if scores.shape[2:] != padded.shape[2:]:
            scores = F.interpolate(scores, size=padded.shape[2:], mode="bilinear", align_corners=False)
        return maps[0], scores[:, :, :rows, :columns]


def trainable_net(
    spec: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    weights: str | None = None,
    encoder_weights: str | None = None,
) -> TrainableNet:
    """The net of segmenter `spec`, its weights drawn with `seed` or read from `weights`, ready to train.

    `encoder_weights`: those of an image classifier, as torchvision and timm publish them, for its encoder.

    Raises `SegmenterError` for a segmenter that has nothing to train, or weights of another architecture.
    """
    if spec in FETCHED and weights is None:
        raise SegmenterError(
            f"segmenter {spec!r} comes with weights and classes of its own; to train such a net, name "
            f"{FETCHED[spec].spec.partition('@')[0]}"
        )
    segmenter = build_segmenter(
        spec, num_classes=num_classes, class_names=class_names, seed=seed, weights=weights, to_train=True
    )
    if not isinstance(segmenter, SplitSegmenter) or not any(True for _ in segmenter.net.parameters()):
        raise SegmenterError(
            f"segmenter {spec!r} cannot be trained here; train tiny:<width>, "
            "smp:<Architecture>/<encoder>, torchvision:<name> or hf:<folder>"
        )
    if encoder_weights is not None:
        _fit_encoder(segmenter.net, encoder_weights, spec)
    return TrainableNet(
        segmenter.net, spec=spec, class_names=segmenter.class_names, trained=segmenter.trained
    )


_CLASSIFIER = ("fc.", "classifier.", "head.", "last_linear.")
"""What the keys of a classifier's last layers begin with."""
_AFTER_ENCODER = ("conv_head.", "bn2.", "incre_modules.", "downsamp_modules.", "final_layer.")
"""Layers of timm's MobileNets and HRNets between the last map and the classifier, where the encoder ends
before them."""
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def _fit_encoder(net: SplitNet, path: str, spec: str) -> None:
    """An image classifier's weights, without its last layers, into the encoder: completely, or refused."""
    encoder = getattr(net, "encoder", getattr(net, "backbone", None))
    if not isinstance(encoder, nn.Module):
        problem = "has no encoder that weights of its own fit; smp:<Architecture>/<encoder> has one"
        raise SegmenterError(f"segmenter {spec!r} {problem}")
    file, wanted = read_weights(path), encoder.state_dict()
    kept = {
        _OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in file.state.items()
        if not key.startswith(_CLASSIFIER)
    }
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    forms = (kept, {key.removeprefix("features."): value for key, value in kept.items()})
    forms = (*forms, {f"model.{key}": value for key, value in kept.items()})
    state = max(forms, key=lambda form: len(form.keys() & wanted.keys()))
    state = {
        key: value
        for key, value in state.items()
        if key in wanted or not key.removeprefix("model.").startswith(_AFTER_ENCODER)
    }
    fit_weights(encoder, replace(file, state=counters | state), what=f"the encoder of {spec}")


def weights_of(net: TrainableNet) -> dict[str, torch.Tensor]:
    """The state dict of the undivided net, on the CPU, under the names that weights files have."""
    return file_state(net, net.net.state_dict())


def file_state(net: TrainableNet, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state`, a state dict of `net.net` (or an average of it), under the names that weights files have."""
    renames = _renames(net.net)
    return {_renamed(key, renames): value.detach().cpu().contiguous() for key, value in state.items()}


def weights_bytes(state: Mapping[str, torch.Tensor], class_names: Sequence[str], **facts: str) -> bytes:
    """A safetensors file with the class names (and `facts`) in its metadata; equal arguments, equal bytes."""
    from safetensors.torch import save

    metadata = {"class_names": json.dumps(list(class_names)), **facts}
    return _sorted_header(save({key: value.clone() for key, value in state.items()}, metadata=metadata))


def _sorted_header(data: bytes) -> bytes:
    """The same file with the keys of its header in order: the library leaves those of the metadata to
    chance."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def _renames(net: SplitNet) -> tuple[tuple[str, str], ...]:
    """Prefixes of the split net's keys and what they are in the undivided net; see each family's split."""
    kind = type(net).__name__
    if kind == "SequentialNet":
        last = len(list(net.get_submodule("context").children()))
        return (("context.", "classifier."), ("classify.", f"classifier.{last}."))
    if kind in ("SharingNet", "TruncatedNet"):
        return (("inner.", ""),)
    if kind == "HfNet":
        from vidseg_core.models.hf_nets import CLASSIFIERS

        config = net.get_submodule("model").config
        classifier = CLASSIFIERS.get(str(config.model_type), "classify")  # type: ignore[union-attr]
        return (("model.", ""), ("classify.", f"{classifier}."))
    return ()


def _renamed(key: str, renames: Sequence[tuple[str, str]]) -> str:
    for before, after in renames:
        if key.startswith(before):
            return after + key.removeprefix(before)
    return key
