"""From the text that a user types to a segmenter.

Specs: `constant`, `plain`, `tiny-scenes`, `tiny-face`, `tiny:<width>`, `smp:<Architecture>/<encoder>`,
`torchvision:<name>`, `hf:<folder or hub id>`, `fastseg:<filters>`, `net:<name>`, `onnx:<file>`, one of these
with levels cached or cut off (`sharing:<levels>/<net>`, `truncated:<levels>/<net>`), a name from `FETCHED`
or `ALIASES`, or `package.module:Class` for anything else that keeps the `Segmenter` protocol. Only a hub id
and a name from `FETCHED` may reach for the network, and heavy libraries are imported only when a spec asks
for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vidseg_core.config.nets import ALIASES, FETCHED, NET_FAMILIES
from vidseg_core.models.bundled import BUNDLED, build_bundled
from vidseg_core.models.constant import CLASS_NAMES, ConstantSegmenter
from vidseg_core.models.fetched import fetched_file
from vidseg_core.models.levels import KINDS, inner_spec, with_levels
from vidseg_core.models.protocol import Segmenter, SegmenterError, unknown_name
from vidseg_core.models.request import ModelRequest
from vidseg_core.models.tiny import build_tiny

SEGMENTER_NAMES = (
    "constant",
    "plain",
    "tiny-scenes",
    "tiny-face",
    "tiny:<width>",
    "smp:<Architecture>/<encoder>",
    "torchvision:<name>",
    "hf:<folder or hub id>",
    "fastseg:<filters>",
    "net:<name>",
    "onnx:<file>",
    "sharing:<levels>/<net>",
    "truncated:<levels>/<net>",
)
"""For help texts; names in `FETCHED` and `ALIASES`, and `package.module:Class`, are understood too."""


def build_segmenter(
    spec: str,
    *,
    device: str | torch.device = "cpu",
    weights: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    precision: str = "fp32",
    channels_last: bool = False,
    to_train: bool = False,
) -> Segmenter:
    """Build the segmenter that `spec` names, frozen and in evaluation mode, and move it to `device`.

    `device`: a torch device, or `auto` for the GPU if there is one. `weights`: a `.safetensors` file, or a
    torch file without pickled code; without it the weights are drawn with `seed`, the same on every call, and
    `trained` is False. `num_classes`: by default as many as the weights have, else the family's habit (smp
    19, torchvision 21). `precision`: `fp32`, `bf16` or `fp16`; scores are float32 always. `to_train`: a
    folder of transformers may lack weights, which is an error otherwise. Raises `SegmenterError`: one
    sentence that names the option or file.
    """
    target = resolve_device(device)
    if spec.partition(":")[0] in KINDS:
        inner = build_segmenter(
            inner_spec(spec),
            weights=weights,
            num_classes=num_classes,
            class_names=class_names,
            seed=seed,
            precision=precision,
            channels_last=channels_last,
            to_train=to_train,
        )
        return with_levels(inner, spec, weights).to(target)
    names = tuple(class_names) if class_names is not None else None
    if spec in FETCHED:
        net = FETCHED[spec]
        if weights is None:  # others take the place of its own
            fits = num_classes in (None, len(net.class_names))
            weights, names = fetched_file(spec), names or (net.class_names if fits else None) or None
        spec = net.spec
    spec = ALIASES.get(spec, spec)
    family, colon, body = spec.partition(":")
    bundled = spec in BUNDLED
    if not colon and not bundled:
        return _build_simple(spec, weights, num_classes, names, precision).to(target)
    if bundled or family in NET_FAMILIES:
        request = ModelRequest(
            spec=spec,
            body=body,
            weights=weights,
            num_classes=num_classes,
            class_names=names,
            seed=seed,
            precision=precision,
            channels_last=channels_last,
            to_train=to_train,
        )
        return _family_builder(family)(request).to(target)
    if "." not in family and "/" in body:
        raise unknown_name("segmenter family", family, NET_FAMILIES)
    from vidseg_core.models.plugin import build_plugin

    options = {"device": str(target), "weights": weights, "num_classes": num_classes}
    return build_plugin(spec, {**options, "class_names": names, "seed": seed, "precision": precision}).to(
        target
    )


def _build_simple(
    spec: str, weights: str | None, num_classes: int | None, names: tuple[str, ...] | None, precision: str
) -> Segmenter:
    if spec not in ("constant", "plain"):
        raise unknown_name("segmenter", spec, (*SEGMENTER_NAMES, *FETCHED, *ALIASES))
    if weights is not None:
        raise SegmenterError(f"segmenter {spec!r} has no weights to read from {weights!r}")
    if spec == "constant":
        counted = tuple(f"class_{number}" for number in range(num_classes)) if num_classes else CLASS_NAMES
        return ConstantSegmenter(class_names=names or counted)
    from vidseg_core.models.plain import build_plain

    segmenter = build_plain(precision=precision)
    if (num_classes or len(names or segmenter.class_names)) != len(segmenter.class_names):
        raise SegmenterError(
            f"segmenter 'plain' has {len(segmenter.class_names)} classes and learns nothing; "
            "a small net to train is tiny:16"
        )
    return segmenter


def _family_builder(family: str) -> Callable[[ModelRequest], Segmenter]:
    if family in BUNDLED:
        return build_bundled
    if family == "tiny":
        return build_tiny
    if family == "smp":
        from vidseg_core.models.smp_nets import build_smp

        return build_smp
    if family == "torchvision":
        from vidseg_core.models.torchvision_nets import build_torchvision

        return build_torchvision
    if family == "net":
        from vidseg_core.models.named import build_named

        return build_named
    if family == "fastseg":
        from vidseg_core.models.fastseg import build_fastseg

        return build_fastseg
    if family == "onnx":
        from vidseg_core.models.onnx_nets import build_onnx

        return build_onnx
    from vidseg_core.models.hf_nets import build_hf

    return build_hf


def resolve_device(device: str | torch.device) -> torch.device:
    """`auto` is the GPU if there is one; a GPU that is not there raises `SegmenterError`."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise SegmenterError(f"device {device!r} is not a torch device") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise SegmenterError(f"device {str(device)!r} was asked for, but torch sees no CUDA GPU here")
    return resolved
