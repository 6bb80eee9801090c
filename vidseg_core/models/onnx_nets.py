"""`onnx:<file>`: a net in one ONNX file, run by onnxruntime (extra `onnx`).

Asked of the file: one input of four axes with three channels (NCHW or NHWC; float32, float16, or uint8 for
0..255), and scores per class as an output of four axes. Model: float input is normalised as for the other
families, with ImageNet's mean and deviation, unless the file's metadata (`mean`, `std`, `class_names`: JSON
lists) or a `preprocessor_config.json` beside it say otherwise. A file with a fixed frame size gets frames
scaled to it and its scores are scaled back; one that takes any size gets frames padded to a multiple of 32. A
graph cannot be split: its features are its scores (see `whole`).

The file is read once and whole, so that the digest is that of what runs; weights in a second file are
refused.

Shape suffixes: B batch, C classes, H W the frame's rows and columns, 3 = RGB.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from vidseg_core.models.geometry import pad_to_multiple
from vidseg_core.models.preprocessor import read_preprocessing
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.request import ModelRequest
from vidseg_core.models.tta import resized
from vidseg_core.models.whole import WholeSegmenter

MULTIPLE = 32
"""What frames are padded to for a file that takes any size, and doubled, the side of the trial frame."""
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


@dataclass(frozen=True, kw_only=True)
class GraphPort:
    """What the file says of its input; None for a size that may vary."""

    name: str
    dtype: Any
    channels_first: bool
    batch: int | None
    size: tuple[int, int] | None


class OnnxSegmenter(WholeSegmenter):
    """A `Segmenter` around one onnxruntime session; see the module docstring."""

    def __init__(self, request: ModelRequest, content: bytes, folder: Path) -> None:
        self.name, self.trained, self.note = request.spec, True, ""
        self._content = content
        self._session = open_session(request.spec, content, "cpu")
        self._port = read_port(request.spec, self._session)
        self._device = torch.device("cpu")
        metadata = _metadata(request.spec, self._session)
        colours = read_preprocessing(folder)
        self._bgr = colours.bgr
        self._mean = _triple(request.spec, metadata.get("mean", colours.mean), "mean")
        self._std = _triple(request.spec, metadata.get("std", colours.std), "std")
        self._output, self._scores_first = self._find_scores()
        found = self._trial().shape[1]
        asked = request.asked_classes()
        if asked is not None and asked != found:
            raise SegmenterError(f"{request.spec} is for {found} classes, but {asked} were asked for")
        names = metadata.get("class_names")
        self.class_names = request.names_for(found, tuple(map(str, names)) if names else None)
        identity = {
            "onnx": hashlib.sha256(content).hexdigest(),
            "class_names": list(self.class_names),
            "normalisation": [self._mean.tolist(), self._std.tolist()],
        }
        if self._bgr:
            identity["colours"] = "BGR"
        self.digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def to(self, device: str | torch.device) -> Self:
        """On `cuda` the session runs there if this onnxruntime can, else on the CPU, as `note` then says."""
        before, self._device = self._device, torch.device(device)
        if self._device.type == before.type:
            return self
        self._session = open_session(self.name, self._content, self._device.type)
        on_cpu = "CUDAExecutionProvider" not in self._session.get_providers()
        self.note = ""
        if self._device.type == "cuda" and on_cpu:
            self.note = f"The segmenter '{self.name}' runs on the CPU: install onnxruntime-gpu for the GPU."
        return self

    def scores(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        """Scores at the frames' size."""
        size = (frames_B3HW.shape[2], frames_B3HW.shape[3])
        frames = frames_B3HW.detach().float().cpu()
        if self._port.size is None:
            fed = pad_to_multiple(frames, MULTIPLE)
        else:
            fed = resized(frames, self._port.size, antialias=True)
        scores = torch.from_numpy(self._run(fed))
        if self._port.size is not None:
            return resized(scores, size).to(self._device)
        return resized(scores, (fed.shape[2], fed.shape[3]))[:, :, : size[0], : size[1]].to(self._device)

    def _run(self, frames_B3hw: torch.Tensor) -> np.ndarray[Any, Any]:
        """float32 scores (B, C, rows, columns) at the file's own resolution."""
        port = self._port
        if port.dtype is np.uint8:
            fed = (frames_B3hw * 255.0).round().clamp(0, 255).numpy()
        else:
            fed = ((frames_B3hw - self._mean) / self._std).numpy()
        fed = fed[:, ::-1] if self._bgr else fed
        fed = fed if port.channels_first else fed.transpose(0, 2, 3, 1)
        fed = np.ascontiguousarray(fed).astype(port.dtype)
        count = len(fed)
        step = port.batch or count
        pieces = []
        for start in range(0, count, step):
            piece = fed[start : start + step]
            if len(piece) < step:
                piece = np.concatenate([piece, np.repeat(piece[-1:], step - len(piece), axis=0)])
            pieces.append(self._session.run([self._output], {port.name: piece})[0])
        found = np.concatenate(pieces)[:count].astype(np.float32, copy=False)
        return np.ascontiguousarray(found if self._scores_first else found.transpose(0, 3, 1, 2))

    def _find_scores(self) -> tuple[str, bool]:
        """The first output of four axes, and whether its classes come before rows and columns."""
        outputs = self._session.get_outputs()
        for output in outputs:
            if len(output.shape) == 4 and "int" not in output.type:
                return output.name, self._port.channels_first
        said = ", ".join(f"{output.name} {output.type} {output.shape}" for output in outputs)
        raise SegmenterError(
            f"{self.name} has no output with scores of shape (B, classes, rows, columns): it gives {said}"
        )

    def _trial(self) -> np.ndarray[Any, Any]:
        """The scores of a black frame: the file runs, and their shape says how many classes there are."""
        rows, columns = self._port.size or (2 * MULTIPLE, 3 * MULTIPLE)
        try:
            found = self._run(torch.zeros(1, 3, rows, columns))
            if not _same_shape(found.shape[2:], (rows, columns)):
                self._scores_first = not self._scores_first
                found = self._run(torch.zeros(1, 3, rows, columns))
        except SegmenterError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base of their own.
            said = " ".join(str(error).split())[:200]
            raise SegmenterError(f"{self.name} fails on a frame of {rows}x{columns}: {said}") from error
        if not _same_shape(found.shape[2:], (rows, columns)):
            raise SegmenterError(
                f"{self.name} turns a frame of {rows}x{columns} into {tuple(found.shape)}: no score map"
            )
        if not 2 <= found.shape[1] <= 256:
            raise SegmenterError(f"{self.name} has {found.shape[1]} score channel(s); 2 to 256 can be used")
        return found


def build_onnx(request: ModelRequest) -> OnnxSegmenter:
    """The segmenter for `onnx:<file>`, on the CPU."""
    path = Path(request.body).expanduser()
    if request.weights is not None:
        raise SegmenterError(
            f"segmenter {request.spec!r} brings its own weights: {request.weights!r} is not used"
        )
    if request.precision != "fp32":
        raise SegmenterError(f"segmenter {request.spec!r} has its own precision, not {request.precision}")
    if not path.is_file():
        raise SegmenterError(f"ONNX file {path} does not exist")
    return OnnxSegmenter(request, path.read_bytes(), path.parent)


def open_session(spec: str, content: bytes, device: str) -> Any:
    """A session on `device` (with the CPU to fall back on) with as many threads as torch has."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # 1.29 and later would send what it sees to its maker
    try:
        import onnxruntime
    except ImportError as error:
        raise SegmenterError(
            f"segmenter {spec!r} needs onnxruntime: pip install 'vidseg[onnx]' ({error})"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    if device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base of their own.
        said = " ".join(str(error).split())[:200]
        raise SegmenterError(
            f"{spec} is not an ONNX file that can be run from itself alone: {said}"
        ) from error


def read_port(spec: str, session: Any) -> GraphPort:
    """The one input, if it can take frames."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs) or "none"
        raise SegmenterError(f"{spec} should have one input, the frames, but has {len(inputs)}: {names}")
    name, shape, kind = inputs[0].name, inputs[0].shape, inputs[0].type
    if kind not in TYPES:
        raise SegmenterError(f"{spec}: input {name!r} is {kind}, not one of {', '.join(TYPES)}")
    sizes = [axis if isinstance(axis, int) and axis > 0 else None for axis in shape]
    if len(sizes) != 4:
        raise SegmenterError(f"{spec}: input {name!r} has shape {shape}, not four axes (B, 3, H, W)")
    channels_first = sizes[1] == 3 or (sizes[1] is None and sizes[3] != 3)
    if not channels_first and sizes[3] != 3:
        raise SegmenterError(f"{spec}: input {name!r} has shape {shape}, no axis of which is RGB")
    rows, columns = sizes[2:] if channels_first else sizes[1:3]
    if (rows is None) != (columns is None):
        raise SegmenterError(f"{spec}: input {name!r} has shape {shape}, with one side fixed and one not")
    size = (rows, columns) if rows is not None and columns is not None else None
    return GraphPort(name=name, dtype=TYPES[kind], channels_first=channels_first, batch=sizes[0], size=size)


def _same_shape(found: tuple[int, ...], frame: tuple[int, int]) -> bool:
    """Whether a map of this size covers the frame at one stride (or is upsampled), to a pixel."""
    rows, columns = frame
    return abs(found[0] * columns - found[1] * rows) <= max(rows, columns)


def _metadata(spec: str, session: Any) -> Mapping[str, Any]:
    said = session.get_modelmeta().custom_metadata_map
    try:
        return {key: json.loads(said[key]) for key in ("mean", "std", "class_names") if key in said}
    except ValueError as error:
        raise SegmenterError(f"{spec}: its metadata are not JSON lists: {error}") from error


def _triple(spec: str, values: Any, what: str) -> torch.Tensor:
    """Three numbers as a (1, 3, 1, 1) tensor."""
    try:
        return torch.tensor([float(value) for value in values], dtype=torch.float32).view(1, 3, 1, 1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SegmenterError(f"{spec}: its {what} should be three numbers, not {values!r}") from error
