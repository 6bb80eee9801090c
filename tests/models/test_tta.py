"""Promise: test-time augmentation averages probabilities of the same pixels, and is told apart by its digest.

A variant that is not mirrored or scaled back still gives plausible, blurred masks; a mean of raw scores lets
one confident scale outvote all others; a digest that does not see it mixes two nets in one run.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vidseg_core.config import SegmentConfig, TtaConfig
from vidseg_core.engine.assemble import build_net
from vidseg_core.models import Features, Segmenter, SegmenterError, build_segmenter
from vidseg_core.models.tta import TtaSegmenter, with_tta


def frames(height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def scores_of(segmenter: Segmenter, frames_B3HW: torch.Tensor) -> torch.Tensor:
    return segmenter.head(segmenter.features(frames_B3HW))


class Columns:
    """Scores that depend on the column: what a mirror image that is not mirrored back gives away."""

    name, class_names, stride, digest, trained, note = "columns", ("left", "right"), 1, "c" * 64, True, ""

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return frames_B3HW.mean(dim=1, keepdim=True)

    def head(self, feats: Features) -> torch.Tensor:
        assert isinstance(feats, torch.Tensor)
        return torch.cat([3.0 * feats, 3.0 * (1 - feats)], dim=1)

    def to(self, device: str | torch.device) -> Columns:
        return self


def test_one_scale_alone_is_the_net_itself() -> None:
    net = build_segmenter("plain")
    assert with_tta(net) is net and with_tta(net, scales=(1.0,)) is net
    x = frames()
    expected = scores_of(net, x).softmax(dim=1)
    torch.testing.assert_close(scores_of(TtaSegmenter(net), x).softmax(dim=1), expected)


def test_the_softmax_of_the_scores_is_the_mean_of_probabilities() -> None:
    net, x = build_segmenter("plain"), frames()
    mirrored = scores_of(net, x.flip(3)).softmax(dim=1).flip(3)
    expected = (scores_of(net, x).softmax(dim=1) + mirrored) / 2
    found = scores_of(TtaSegmenter(net, flip=True), x)
    torch.testing.assert_close(found.softmax(dim=1), expected)
    assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))
    assert bool(torch.isfinite(found).all())


def test_scales_are_brought_back_to_the_frame() -> None:
    net, x = build_segmenter("plain"), frames()
    larger = F.interpolate(x, size=(60, 84), mode="bilinear", align_corners=False)
    back = F.interpolate(scores_of(net, larger).softmax(dim=1), size=(40, 56), mode="bilinear")
    expected = (scores_of(net, x).softmax(dim=1) + back) / 2
    found = scores_of(TtaSegmenter(net, scales=(1.0, 1.5)), x).softmax(dim=1)
    torch.testing.assert_close(found, expected)


def test_a_mirrored_frame_gives_mirrored_scores() -> None:
    net = TtaSegmenter(Columns(), scales=(0.5, 1.0), flip=True)
    x = torch.linspace(0, 1, 24).expand(1, 3, 8, 24)
    torch.testing.assert_close(scores_of(net, x.flip(3)), scores_of(net, x).flip(3))
    assert not torch.equal(scores_of(net, x).argmax(dim=1), scores_of(net, x.flip(3)).argmax(dim=1))


@pytest.mark.parametrize("size", [(1, 1), (33, 47)])
def test_it_keeps_the_protocol_at_any_size(size: tuple[int, int]) -> None:
    plain = build_segmenter("plain")
    net = with_tta(plain, scales=(0.5, 1.25), flip=True)
    assert isinstance(net, Segmenter) and net.stride == 1 and net.class_names == plain.class_names
    feats = net.features(frames(*size))
    assert isinstance(feats, torch.Tensor) and feats.shape == (2, len(plain.class_names), *size)
    assert torch.equal(net.head(feats), feats)
    assert (net.trained, net.note, net.name) == (False, plain.note, "plain (scales 0.5,1.25, flip)")


def test_the_digest_knows_scales_and_flip_and_not_their_order() -> None:
    net = build_segmenter("plain")
    digests = {
        with_tta(net, scales=scales, flip=flip).digest
        for scales in ((), (0.75, 1.0), (0.75, 1.0, 1.25))
        for flip in (False, True)
    }
    assert len(digests) == 6 and net.digest in digests
    assert with_tta(net, scales=(1.0, 0.75)).digest == with_tta(net, scales=(0.75, 1.0)).digest
    assert with_tta(net, flip=True).digest != with_tta(build_segmenter("constant"), flip=True).digest


def test_scales_must_be_above_zero() -> None:
    with pytest.raises(SegmenterError, match=r"above 0, got \(0\.0,\)"):
        TtaSegmenter(build_segmenter("plain"), scales=(0.0,))


def test_a_configuration_builds_it_and_its_default_does_not() -> None:
    plain = SegmentConfig(input=("a",), output="b", segmenter="plain")
    assert build_net(plain, "cpu").digest == build_segmenter("plain").digest
    asked = SegmentConfig(
        input=("a",), output="b", segmenter="plain", tta=TtaConfig(scales=(0.75, 1.0), flip=True)
    )
    net = build_net(asked, "cpu")
    assert isinstance(net, TtaSegmenter) and net.scales == (0.75, 1.0) and net.flip
    assert "TTA at scales 0.75 1 with flip" in asked.describe() and "TTA" not in plain.describe()
    changed = {
        name
        for name, value in asked.fingerprint_fields().items()
        if value != plain.fingerprint_fields()[name]
    }
    assert changed == {"tta.scales", "tta.flip"}
