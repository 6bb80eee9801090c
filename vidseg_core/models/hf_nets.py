"""`hf:<local folder>`: semantic segmentation nets of transformers, from `config.json` and the weights beside
it.

Split: where the architecture's last layer is a classifying convolution, N_task is that layer and N_feat all
before it; for others N_feat is the whole net, its logits are the features, and N_task is the upsampling. The
folder's `preprocessor_config.json` gives mean and deviation, if it is there. Nothing is downloaded and no
code of the folder is run.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.request import UNTRAINED, ModelRequest, measured_stride, seeded
from vidseg_core.models.split import IMAGENET_MEAN, IMAGENET_STD, SplitNet, SplitOptions, SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision
from vidseg_core.models.weights import fit_weights

CLASSIFIERS = {
    "segformer": "decode_head.classifier",
    "upernet": "decode_head.classifier",
    "mobilevit": "segmentation_head.classifier",
    "mobilevitv2": "segmentation_head.classifier",
    "mobilenet_v2": "segmentation_head.classifier",
}
"""For each `model_type`: the layer that turns features into class scores."""
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
MULTIPLE = 32


class HfNet(SplitNet):
    """Any semantic segmentation net of transformers; see the module docstring for the split."""

    multiple = MULTIPLE

    def __init__(self, model: Any, normalisation: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        super().__init__()
        self.mean, self.std = normalisation  # type: ignore[assignment]
        self.classify: nn.Module = nn.Identity()
        path = CLASSIFIERS.get(model.config.model_type)
        if path is not None:
            self.classify = model.get_submodule(path)
            model.set_submodule(path, nn.Identity())
        self.model = model
        self.stride = measured_stride(self)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat. UperNet is entered by its parts, because it upsamples after its classifier."""
        if self.model.config.model_type == "upernet":
            maps = self.model.backbone.forward_with_filtered_kwargs(frames_B3HW).feature_maps
            return (self.model.decode_head(maps),)
        return (self.model(pixel_values=frames_B3HW).logits,)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task, at the features' size."""
        return self.classify(maps[0])


def build_hf(request: ModelRequest) -> SplitSegmenter:
    """The segmenter for `hf:<local folder>`, on the CPU."""
    folder = Path(request.body).expanduser()
    if not (folder / "config.json").is_file():
        raise SegmenterError(
            f"segmenter {request.spec!r} needs a local folder with a config.json; nothing is downloaded"
        )
    import_torchvision()
    import transformers

    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = _read_config(transformers, folder, request)
    model, trained = _load(transformers, folder, config, request)
    known = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    options = SplitOptions(
        name=request.spec,
        class_names=request.names_for(config.num_labels, known),
        trained=trained,
        note="" if trained else UNTRAINED.format(spec=request.spec, seed=request.seed),
        architecture=json.dumps(config.to_diff_dict(), sort_keys=True, default=str),
        precision=request.precision,
        channels_last=request.channels_last,
    )
    return SplitSegmenter(HfNet(model, _normalisation(folder)), options)


def _read_config(transformers: Any, folder: Path, request: ModelRequest) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise SegmenterError(
            f"{folder / 'config.json'} is not a config that transformers knows: {error}"
        ) from error
    if type(config) not in transformers.AutoModelForSemanticSegmentation._model_mapping:
        raise SegmenterError(
            f"{folder} holds a {config.model_type} net, which transformers cannot use to segment"
        )
    asked = request.asked_classes()
    if asked is not None and asked != config.num_labels:
        if _weights_beside(folder) and not request.weights:
            raise SegmenterError(f"{folder} is for {config.num_labels} classes, but {asked} were asked for")
        config.num_labels = asked
    return config


def _weights_beside(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHT_FILES)


def _load(transformers: Any, folder: Path, config: Any, request: ModelRequest) -> tuple[nn.Module, bool]:
    auto = transformers.AutoModelForSemanticSegmentation
    file = request.read()
    if file is not None or not _weights_beside(folder):
        model = seeded(request.seed, lambda: auto.from_config(config))
        if file is not None:
            head = f"{CLASSIFIERS.get(config.model_type, '')}.weight"
            fit_weights(model, file, what=request.spec, head_key=head)
        return model, file is not None
    try:
        model, report = auto.from_pretrained(
            str(folder), config=config, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise SegmenterError(f"the weights in {folder} cannot be loaded: {error}") from error
    absent = sorted(report["missing_keys"])
    if absent:
        raise SegmenterError(f"the weights in {folder} lack {len(absent)} tensors, the first is {absent[0]}")
    return model.eval(), True


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        mean, std = said.get("image_mean", IMAGENET_MEAN), said.get("image_std", IMAGENET_STD)
        if said.get("do_normalize", True) is False:
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return tuple(map(float, mean)), tuple(map(float, std))
    except (ValueError, TypeError, AttributeError) as error:
        raise SegmenterError(f"{path} is not a readable preprocessor config: {error}") from error
