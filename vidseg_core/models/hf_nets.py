"""`hf:<local folder, hub id or built-in name>`: semantic segmentation nets of transformers.

A folder is a `config.json` with the weights beside it; a hub id (`organisation/name[@revision]`) becomes
such a folder (see `hub`); a built-in name is an architecture without weights. A local folder of the same name
comes first. No code of a folder or of the hub is ever run.

Split: where the architecture's last layer is a classifying convolution, N_task is that layer and N_feat all
before it. Mask2Former and MaskFormer classify masks: their evidence for class c at a pixel is the sum over
queries q of p_q(c) m_q(pixel); those maps are the features, and N_task brings them to the frame's size and
takes the logarithm, so that a softmax gives the evidence back, normalised. For others N_feat is the whole
net, its logits are the features, and N_task is the upsampling. `preprocessor_config.json` says how colours
are fed (see `preprocessor`). Which of them are in parts: `hf_parts`.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.hf_parts import stages_of
from vidseg_core.models.hub import has_safetensors, hub_folder, is_hub_id
from vidseg_core.models.preprocessor import Preprocessing, read_preprocessing
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.request import UNTRAINED, ModelRequest, measured_stride, seeded
from vidseg_core.models.split import SplitNet, SplitOptions, SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision
from vidseg_core.models.weights import WeightsFile, fit_weights

CLASSIFIERS = {
    "segformer": "decode_head.classifier",
    "upernet": "decode_head.classifier",
    "mobilevit": "segmentation_head.classifier",
    "mobilevitv2": "segmentation_head.classifier",
    "mobilenet_v2": "segmentation_head.classifier",
}
"""For each `model_type`: the layer that turns features into class scores."""
MASK_CLASSIFIERS = {"mask2former": "class_predictor", "maskformer": "class_predictor"}
"""For each `model_type` that classifies masks: the layer for classes (and one more, for "none")."""
BUILT_IN = {"segformer-b0": "SegformerConfig", "mask2former-swin-small": "Mask2FormerConfig"}
"""Architectures that go by name: the configs whose defaults they are. Weights come with `weights`."""
DEFAULT_CLASSES = 19
"""Number of classes of the built-in names."""
MULTIPLE = 32
LEAST = 1e-8
"""Evidence below this counts as this before the logarithm."""


class LogEvidence(nn.Module):
    """N_task of mask classifiers: class evidence at a fraction of the frame's size to scores at all of it."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, evidence_BChw: torch.Tensor) -> torch.Tensor:
        """scores_BCHW."""
        evidence = evidence_BChw.float()
        full = F.interpolate(evidence, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return full.clamp_min(LEAST).log()


class HfNet(SplitNet):
    """Any semantic segmentation net of transformers; see the module docstring for the split."""

    multiple = MULTIPLE

    def __init__(self, model: Any, colours: Preprocessing) -> None:
        super().__init__()
        self.mean, self.std, self.bgr = colours.mean, colours.std, colours.bgr
        self.classify: nn.Module = nn.Identity()
        self.kind = str(model.config.model_type)
        path = CLASSIFIERS.get(self.kind)
        if path is not None:
            self.classify = model.get_submodule(path)
            model.set_submodule(path, nn.Identity())
        self.model = model
        self.stride = measured_stride(self)
        if self.kind in MASK_CLASSIFIERS:
            self.classify = LogEvidence(self.stride)
        self._stages = stages_of(model)
        if self._stages is not None:
            self.low_count, self.low_stride = len(self._stages.low), self._stages.low_stride

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """S_l: the first stages."""
        assert self._stages is not None
        return self._stages.lower(frames_B3HW.flip(1) if self.bgr else frames_B3HW)

    def higher(self, low: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """S_h: the stages after them, and the decoder up to its last layer."""
        assert self._stages is not None
        return (self._stages.higher(low),)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat. UperNet is entered by its parts, because it upsamples after its classifier."""
        if self.bgr:
            frames_B3HW = frames_B3HW.flip(1)
        if self.kind == "upernet":
            maps = self.model.backbone.forward_with_filtered_kwargs(frames_B3HW).feature_maps
            return (self.model.decode_head(maps),)
        found = self.model(pixel_values=frames_B3HW)
        if self.kind in MASK_CLASSIFIERS:
            classes_BQC = found.class_queries_logits.softmax(dim=-1)[..., :-1]
            masks_BQhw = found.masks_queries_logits.sigmoid()
            return (torch.einsum("bqc,bqhw->bchw", classes_BQC, masks_BQhw),)
        return (found.logits,)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task, at the features' size or the frame's."""
        return self.classify(maps[0])


def build_hf(request: ModelRequest) -> SplitSegmenter:
    """The segmenter for `hf:...`, on the CPU."""
    folder = _folder(request)
    transformers = silent_transformers()
    file = request.read()
    config = _read_config(transformers, folder, request, file)
    model, trained = _load(transformers, folder, config, request, file)
    known = file.class_names if file is not None else None
    colours = read_preprocessing(folder)
    architecture = json.dumps(config.to_diff_dict(), sort_keys=True, default=str)
    options = SplitOptions(
        name=request.spec,
        class_names=request.names_for(config.num_labels, known or _labels(config)),
        trained=trained,
        note="" if trained else UNTRAINED.format(spec=request.spec, seed=request.seed),
        architecture=f"{architecture} BGR" if colours.bgr else architecture,
        precision=request.precision,
        channels_last=request.channels_last,
    )
    return SplitSegmenter(HfNet(model, colours), options)


def silent_transformers() -> Any:
    """The library, which says nothing but by raising."""
    import_torchvision()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers


def _folder(request: ModelRequest) -> Path | None:
    """Where config and weights are; None for a built-in name."""
    folder = Path(request.body).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if request.body in BUILT_IN:
        return None
    if is_hub_id(request.body) and not folder.exists():
        return hub_folder(request.body)
    raise SegmenterError(
        f"segmenter {request.spec!r} needs a local folder with a config.json, a hub id "
        f"(hf:organisation/name) or one of {', '.join(BUILT_IN)}"
    )


def _read_config(
    transformers: Any, folder: Path | None, request: ModelRequest, file: WeightsFile | None
) -> Any:
    if folder is None:
        config = getattr(transformers, BUILT_IN[request.body])()
    else:
        config = _config_beside(transformers, folder)
    found = _classes_in(file, config.model_type) if file is not None else None
    asked = request.asked_classes() or found
    if file is not None and found is not None and asked != found:
        raise SegmenterError(f"weights file {file.path} is for {found} classes, but {asked} were asked for")
    if folder is None:
        asked = asked or DEFAULT_CLASSES
        config.id2label = {number: f"class_{number}" for number in range(asked)}
    elif asked is not None and asked != config.num_labels:
        if _weights_beside(folder) and file is None:
            raise SegmenterError(f"{folder} is for {config.num_labels} classes, but {asked} were asked for")
        config.num_labels = asked
    return config


def _config_beside(transformers: Any, folder: Path) -> Any:
    config = read_config(transformers, folder)
    fits = type(config) in transformers.AutoModelForSemanticSegmentation._model_mapping
    if not fits and config.model_type not in MASK_CLASSIFIERS:
        raise SegmenterError(
            f"{folder} holds a {config.model_type} net, which cannot be used to segment here"
        )
    _check_labels(folder / "config.json", config)
    return config


def read_config(transformers: Any, folder: Path) -> Any:
    """The config.json of a folder, whatever net it is of; `SegmenterError` for one that cannot be read."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = None  # transformers says what is wrong with it
    _check_no_reference(folder, said)
    try:
        return transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SegmenterError(
            f"{folder / 'config.json'} is not a config that transformers knows: {_sentence(error)}"
        ) from error


def _check_labels(path: Path, config: Any) -> None:
    """Class i needs the name `id2label[i]`, for every i."""
    there = set(config.id2label)
    absent = [number for number in range(len(there)) if number not in there]
    if absent:
        odd = ", ".join(str(number) for number in sorted(there - set(range(len(there))), key=str)[:3])
        raise SegmenterError(
            f"{path}: id2label has {len(there)} names, but none for class {absent[0]} (there is {odd}): "
            f"number them from 0 to {len(there) - 1}"
        )


def _labels(config: Any) -> tuple[str, ...]:
    """The names in `id2label`; one that several classes share gets the class's number after it."""
    names = [str(config.id2label[number]) for number in range(config.num_labels)]
    times = Counter(names)
    return tuple(f"{name} {number}" if times[name] > 1 else name for number, name in enumerate(names))


def _check_no_reference(folder: Path, config: Any) -> None:
    """Refuse a backbone that is elsewhere: transformers would ask the hub for it, timm also other folders."""
    if not isinstance(config, dict):
        return
    name = config.get("backbone")
    plain = config.get("model_type") == "timm_backbone" or config.get("backbone_config") is not None
    if isinstance(name, str) and (not plain or "/" in name or ":" in name):
        raise SegmenterError(
            f"{folder / 'config.json'} refers to a backbone that is not in it ({name}): nothing is fetched "
            "for a local folder, save the net with its whole config"
        )
    for value in config.values():
        _check_no_reference(folder, value)


def _classes_in(file: WeightsFile, model_type: str) -> int | None:
    if model_type in MASK_CLASSIFIERS:
        rows = file.classes(f"{MASK_CLASSIFIERS[model_type]}.weight")
        return rows - 1 if rows else None
    return file.classes(f"{CLASSIFIERS.get(model_type, '')}.weight")


def _weights_beside(folder: Path) -> bool:
    return has_safetensors(folder) or (folder / "pytorch_model.bin").is_file()


def _load(
    transformers: Any, folder: Path | None, config: Any, request: ModelRequest, file: WeightsFile | None
) -> tuple[nn.Module, bool]:
    auto = transformers.AutoModelForSemanticSegmentation
    if config.model_type in MASK_CLASSIFIERS:
        auto = transformers.AutoModelForUniversalSegmentation
    if file is None and folder is not None and _weights_beside(folder):
        return pretrained(auto, folder, config), True
    if file is None and folder is not None and not request.to_train:
        raise SegmenterError(
            f"{folder} has a config.json, but no weights: put model.safetensors there, or name a file with "
            "--weights"
        )
    try:
        model = seeded(request.seed, lambda: auto.from_config(config, trust_remote_code=False))
    except ImportError as error:
        raise SegmenterError(f"segmenter {request.spec!r} cannot be built: {_sentence(error)}") from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise SegmenterError(
            f"segmenter {request.spec!r}: transformers cannot build its config: {_sentence(error)}"
        ) from error
    return (model, False) if file is None else (_fitted(model, config, request, file), True)


def _fitted(model: Any, config: Any, request: ModelRequest, file: WeightsFile) -> nn.Module:
    """`model` with the file's weights, whose names are the net's own or those of published checkpoints."""
    if file.state.keys() != model.state_dict().keys():
        try:
            renamed, report = type(model).from_pretrained(
                None,
                config=config,
                state_dict=dict(file.state),
                output_loading_info=True,
                dtype=torch.float32,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise SegmenterError(
                f"weights file {file.path} does not fit {request.spec}: {_sentence(error)}"
            ) from error
        if not report["missing_keys"] and not report["unexpected_keys"]:
            return renamed.eval()
    fit_weights(model, file, what=request.spec)
    return model


def pretrained(auto: Any, folder: Path, config: Any) -> nn.Module:
    """A net with the weights beside its config, by `auto`, a class of transformers; a `pytorch_model.bin` is
    read as tensors only, never unpickled."""
    try:
        model, report = auto.from_pretrained(
            str(folder),
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=has_safetensors(folder),
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, ImportError, pickle.UnpicklingError) as error:
        raise SegmenterError(f"the weights in {folder} cannot be loaded: {_sentence(error)}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise SegmenterError(f"the weights in {folder} cannot be loaded: {_sentence(error)}") from error
    if report["mismatched_keys"]:
        raise SegmenterError(_mismatch(folder, config, sorted(report["mismatched_keys"])))
    absent = sorted(report["missing_keys"])
    if absent:
        raise SegmenterError(f"the weights in {folder} lack {len(absent)} tensors, the first is {absent[0]}")
    return model.eval()


def _mismatch(folder: Path, config: Any, keys: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> str:
    """What is wrong with weights of another shape; the classifying layer says how many labels are right."""
    for name, there, wanted in keys:
        classifies = name.startswith(f"{CLASSIFIERS.get(config.model_type)}.") or "classifier" in name
        if classifies and there[0] != wanted[0]:
            return (
                f"the weights in {folder} are for {there[0]} class(es), but id2label in config.json has "
                f"{config.num_labels}"
            )
    name, there, wanted = keys[0]
    return (
        f"the weights in {folder} do not fit config.json: {name} is {tuple(there)}, not {tuple(wanted)}"
        + (f", and {len(keys) - 1} more" if len(keys) > 1 else "")
    )


def _sentence(error: Exception) -> str:
    """The first of what a library has to say, on one line."""
    return " ".join(str(error).split())[:300]
