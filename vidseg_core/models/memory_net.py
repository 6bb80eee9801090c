"""Nets that remember objects: the video models of SAM 2 and EdgeTAM in transformers, as one step of tracking.

A net is shown a key with the masks of its objects (`see_key`), then frames one after another, away from the
key (`track`); it says where each object is (Ravi and others 2024, section 4; Zhou and others 2025). What it
remembers of a frame is data here (`Remembered`), handed in and given back: the net itself holds no state, so
a segment's memory can be stored, and a frame depends on its key and the frames between alone.

Objects go through the net one by one, as transformers does it. A folder or hub id is read as the segmenters
of `hf_nets` are: tensors from safetensors, no code.

Legend: O objects; H, W size of a frame; S the net's own size; s = S / 4, that of its masks; M memories.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as functional

from vidseg_core.models.digest import digest_file
from vidseg_core.models.hf_nets import pretrained, read_config, silent_transformers
from vidseg_core.models.hub import has_safetensors, hub_folder, is_hub_id
from vidseg_core.models.preprocessor import NAME, read_preprocessing
from vidseg_core.models.protocol import SegmenterError

MODELS = {"sam2": ("sam2_video", "Sam2Video"), "edgetam": ("edgetam_video", "EdgeTamVideo")}
"""Family -> `model_type` in config.json, and the beginning of the names of its classes."""
FORM = 2
"""Of what is held between frames; another one may move a pixel, and a run begun with it is not continued."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the net keeps of one object on one frame."""

    features: torch.Tensor | None
    """What the memory encoder made of frame and mask; None where that is too long ago to be looked at."""
    pointer: torch.Tensor
    """What the mask decoder's token says of the object."""


@dataclass(frozen=True, slots=True)
class SeenKey:
    """A key as the net remembers it."""

    objects: list[Remembered]
    places: torch.Tensor | None
    """Positions of the features, the same for every frame and object; None without objects."""


class MemoryNet:
    """`family`: sam2 or edgetam. `place`: a local folder, or a hub id with or without a revision."""

    def __init__(self, family: str, place: str, device: str = "cpu") -> None:
        self.folder = memory_folder(family, place)
        kind, name = MODELS[family]
        transformers = silent_transformers()
        config = read_config(transformers, self.folder)
        if config.model_type != kind:
            raise SegmenterError(f"{self.folder} holds a {config.model_type} net, but {family} needs {kind}")
        if not isinstance(config.image_size, int) or config.num_maskmem < 1:
            raise SegmenterError(f"{self.folder}: image_size must be one number, num_maskmem 1 or more")
        self.device = torch.device(device)
        self._model = pretrained(getattr(transformers, f"{name}Model"), self.folder, config).to(self.device)
        module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
        self._session = getattr(module, f"{name}InferenceSession")
        colours = read_preprocessing(self.folder)
        self._mean, self._std = (torch.tensor(v)[:, None, None] for v in (colours.mean, colours.std))
        self.size: int = config.image_size
        self.memories: int = config.num_maskmem - 1
        """Frames whose features are looked at, besides the key."""
        self.pointers: int = max(config.max_object_pointers_in_encoder - 1, 0)
        """Frames whose pointers are."""
        latents = getattr(config, "perceiver_resampler_num_latents", 0)
        latents += getattr(config, "perceiver_resampler_num_latents_2d", 0)
        rows, columns = config.vision_config.backbone_feature_sizes[-1]
        self.feature_bytes = (4 * latents or 2 * rows * columns) * config.memory_encoder_output_channels
        """Of what is remembered of an object on a frame: float32 latents, or a map in bfloat16."""
        self.places_bytes = 4 * (latents or rows * columns) * config.memory_encoder_output_channels
        """Of the positions of a key's features, the same for all objects."""
        self.mask_side: int = config.image_size // 4
        """Rows and columns of its masks."""
        self.pointer_bytes = 4 * config.vision_config.fpn_hidden_size

    def fit(self, masks_OHW: np.ndarray) -> torch.Tensor:
        """masks_O1SS float32, 0 or 1: bool masks at the net's size."""
        masks = torch.from_numpy(masks_OHW)[:, None].float()
        size = (self.size, self.size)
        grown = functional.interpolate(masks, size, mode="bilinear", align_corners=False, antialias=True)
        return (grown >= 0.5).float()

    @torch.inference_mode()
    def see_key(self, frame_HW3: np.ndarray, masks_O1SS: torch.Tensor) -> SeenKey:
        """What is remembered of a key whose objects are there."""
        if not len(masks_O1SS):
            return SeenKey([], None)
        session = self._new_session()
        for number, mask_1SS in enumerate(masks_O1SS):
            session.obj_id_to_idx(number)
            session.add_mask_inputs(number, 0, mask_1SS[None])
        session.obj_with_new_inputs = list(range(len(masks_O1SS)))
        self._model(session, frame=self._pixels(frame_HW3), frame_idx=0)
        outputs = [session.output_dict_per_obj[n]["cond_frame_outputs"][0] for n in range(len(masks_O1SS))]
        return SeenKey([_remembered(out) for out in outputs], outputs[0]["maskmem_pos_enc"].clone())

    @torch.inference_mode()
    def track(
        self, frame_HW3: np.ndarray, key: SeenKey, past: Sequence[Sequence[Remembered]], distance: int
    ) -> tuple[torch.Tensor, list[Remembered]]:
        """scores_Oss float32 of each object on the frame (above 0: it is there), and what is remembered.

        `distance`: frames between the key and this one. `past`: of the frames before it, the last one last.
        """
        session = self._new_session()
        for number, at_key in enumerate(key.objects):
            session.obj_id_to_idx(number)
            outputs = session.output_dict_per_obj[number]
            outputs["cond_frame_outputs"][0] = self._output(at_key, key)
            for place, frame in enumerate(past):
                known = self._output(frame[number], key)
                outputs["non_cond_frame_outputs"][distance - len(past) + place] = known
        found = self._model(session, frame=self._pixels(frame_HW3), frame_idx=distance)
        outputs = [
            session.output_dict_per_obj[n]["non_cond_frame_outputs"][distance]
            for n in range(len(key.objects))
        ]
        return found.pred_masks[:, 0].float().cpu(), [_remembered(out) for out in outputs]

    def _new_session(self) -> Any:
        """A session of transformers, which lives for one frame."""
        return self._session(
            video_height=self.size,
            video_width=self.size,
            inference_device=self.device,
            inference_state_device=self.device,
            video_storage_device=self.device,
            dtype=torch.float32,
        )

    def _output(self, known: Remembered, key: SeenKey) -> dict[str, torch.Tensor]:
        """In the form of a session's outputs."""
        assert key.places is not None
        output = {"object_pointer": known.pointer.to(self.device), "maskmem_pos_enc": key.places}
        if known.features is not None:
            output["maskmem_features"] = known.features.to(self.device)
        return output

    def _pixels(self, frame_HW3: np.ndarray) -> torch.Tensor:
        """The frame as the net wants it: (3, S, S), normalised."""
        shrinks = max(frame_HW3.shape[:2]) > self.size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        square_SS3 = cv2.resize(frame_HW3, (self.size, self.size), interpolation=how)
        pixels_3SS = torch.from_numpy(square_SS3).permute(2, 0, 1).float() / 255.0
        return (pixels_3SS - self._mean) / self._std


def _remembered(output: dict[str, torch.Tensor]) -> Remembered:
    """Copies, so that what an output shared memory with is not kept alive."""
    return Remembered(output["maskmem_features"].clone(), output["object_pointer"].clone())


def memory_folder(family: str, place: str) -> Path:
    """Where config and weights are; a hub id is fetched if it is not in the cache. `SegmenterError`: there
    are none."""
    folder = Path(place).expanduser()
    if not (folder / "config.json").is_file():
        if not is_hub_id(place) or folder.exists():
            raise SegmenterError(
                f"{family}:{place}: needs a local folder with a config.json, or a hub id "
                f"({family}:organisation/name, @revision after it if you like)"
            )
        folder = hub_folder(place)
    if not has_safetensors(folder):
        raise SegmenterError(f"{folder} has a config.json, but no model.safetensors beside it")
    return folder


def memory_digest(family: str, place: str) -> str:
    """Hex SHA-256 over `FORM` and the files that decide what the net says, wherever they lie."""
    folder = memory_folder(family, place)
    files = [folder / "config.json", folder / NAME, *sorted(folder.glob("model*.safetensors"))]
    parts = [f"form {FORM}", *(f"{file.name} {digest_file(file)}" for file in files if file.is_file())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
