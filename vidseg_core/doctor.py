"""``vidseg doctor``: what a run would need on this machine, what is there, and what to do about the rest.

Every check is a function that yields findings and changes nothing that it does not put back. A check that
breaks is itself a finding (``fail``), so that one broken library does not hide the others. The verdict is
the worst finding: exit code 1 if any is ``fail``, else 0; ``warn`` means slower or smaller, not wrong.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidseg_core import __version__
from vidseg_core.aws import s3_client
from vidseg_core.config.schema import redact
from vidseg_core.config.verbs import DoctorConfig

if TYPE_CHECKING:
    from vidseg_core.datasets.survey import Survey

__all__ = ["CHECKS", "Finding", "examine", "run_doctor"]

PYTHON_FLOOR = (3, 11)
PYAV_FLOOR = 18
AVCODEC_FLOOR = 62
"""libavcodec of FFmpeg 8, the oldest that we let near untrusted files."""
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4")
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, the verdict, what was found and what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    value: str
    hint: str = ""


def _judge(
    name: str, fine: bool, value: str, hint: str, otherwise: Literal["warn", "fail"] = "fail"
) -> Finding:
    return Finding(name, "ok", value) if fine else Finding(name, otherwise, value, hint)


def check_python(_: DoctorConfig) -> Iterator[Finding]:
    """The interpreter, this package, and the setting that makes every Ray worker slow to start."""
    version = platform.python_version()
    yield _judge("python", sys.version_info[:2] >= PYTHON_FLOOR, version, "needs Python 3.11 or newer")
    yield Finding("vidseg", "ok", __version__)
    no_cache = sys.dont_write_bytecode and not sys.pycache_prefix
    hint = "every Ray worker compiles torch again: unset PYTHONDONTWRITEBYTECODE"
    yield _judge("byte code cache", not no_cache, "off" if no_cache else "on", hint, "warn")


def check_torch(_: DoctorConfig) -> Iterator[Finding]:
    """torch, and the GPUs that it can see."""
    import torch

    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield Finding(f"gpu {index}", "ok", f"{device.name}, {device.total_memory / GIB:.0f} GiB")
    elif shutil.which("nvidia-smi"):
        hint = "install a torch build for the CUDA version that nvidia-smi shows"
        yield Finding("gpu", "warn", "a driver is there, torch sees no GPU", hint)
    else:
        yield Finding("gpu", "ok", "none; nets run on the CPU")


def check_media(_: DoctorConfig) -> Iterator[Finding]:
    """PyAV, the FFmpeg libraries inside it, and the decoders that they have."""
    import av
    from av.codec import Codec

    major = int(av.__version__.split(".")[0])
    hint = f"untrusted files want PyAV {PYAV_FLOOR} or newer: pip install -U 'av>={PYAV_FLOOR}'"
    yield _judge("pyav", major >= PYAV_FLOOR, av.__version__, hint)
    versions = {name: ".".join(map(str, found)) for name, found in av.library_versions.items()}
    text = ", ".join(f"{name} {versions[name]}" for name in ("libavcodec", "libavformat", "libswscale"))
    hint = f"libavcodec {AVCODEC_FLOOR} (FFmpeg 8) or newer is wanted; install PyAV's own wheel"
    yield _judge("ffmpeg", av.library_versions["libavcodec"][0] >= AVCODEC_FLOOR, text, hint, "warn")
    missing = []
    for name in DECODERS:
        try:
            Codec(name, "r")
        except ValueError:
            missing.append(name)
    hint = f"videos in {', '.join(missing)} will be quarantined; install PyAV's own wheel"
    yield _judge("decoders", not missing, ", ".join(n for n in DECODERS if n not in missing), hint, "warn")


def check_opencv(_: DoctorConfig) -> Iterator[Finding]:
    """OpenCV and its DIS optical flow."""
    import cv2

    hint = "install opencv-python-headless 4.10 or newer"
    yield _judge("opencv", hasattr(cv2, "DISOpticalFlow_create"), cv2.__version__, hint)


def check_libraries(_: DoctorConfig) -> Iterator[Finding]:
    """Installed versions of the rest, without importing it."""
    names = ("numpy", "pyarrow", "boto3", "segmentation-models-pytorch", "transformers")
    for name in names:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", f"pip install -c constraints.txt {name}")


def check_torchvision(_: DoctorConfig) -> Iterator[Finding]:
    """torchvision, imported: a wheel that was built for another torch is installed and of no use."""
    import torch

    from vidseg_core.models.torchvision_compat import import_torchvision

    hint = f"install the torchvision that belongs to torch {torch.__version__}"
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        yield Finding("torchvision", "fail", "not installed", hint)
        return
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        text = f"{version} cannot be imported ({type(error).__name__}: {error})"
    else:
        yield Finding("torchvision", "ok", version)
        return
    try:
        import_torchvision()
    except Exception:
        yield Finding("torchvision", "fail", text, hint)
    else:
        yield Finding("torchvision", "warn", f"{text}; the nets here work all the same", hint)


def check_memory(_: DoctorConfig) -> Iterator[Finding]:
    """Processors, memory (also the container's limit) and shared memory for frames under way."""
    import psutil

    yield Finding("cpus", "ok", str(len(os.sched_getaffinity(0))))
    memory = psutil.virtual_memory()
    total = min(memory.total, _cgroup_limit() or memory.total)
    text = f"{memory.available / GIB:.1f} GiB free of {total / GIB:.1f}"
    hint = "below 4 GiB: use --workers 1 --decoders 1 and a small --object_store_mb"
    yield _judge("memory", min(memory.available, total) >= 4 * GIB, text, hint, "warn")
    if not os.path.isdir("/dev/shm"):
        yield Finding("shared memory", "warn", "no /dev/shm", "Ray keeps frames on disk instead: slower")
        return
    shm = shutil.disk_usage("/dev/shm").total
    hint = "below 30 % of the memory: Ray may keep frames on disk; in Docker give --shm-size"
    yield _judge("shared memory", shm >= 0.28 * total, f"{shm / GIB:.1f} GiB in /dev/shm", hint, "warn")


def _cgroup_limit() -> int | None:
    """Memory limit of this container in bytes, if it has one."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def check_disk(config: DoctorConfig) -> Iterator[Finding]:
    """Room for Ray's spilled objects, and a writable output folder if one was named."""
    places = {"disk for ray": Path(os.environ.get("RAY_TMPDIR", "/tmp"))}
    if config.output is not None and "://" not in config.output:
        places["disk for output"] = _existing_parent(Path(config.output))
        yield _writable(Path(config.output))
    for name, path in places.items():
        usage = shutil.disk_usage(path)
        text = f"{usage.free / GIB:.1f} GiB free at {path}"
        fine = usage.free >= 5 * GIB and usage.free >= 0.05 * usage.total
        yield _judge(name, fine, text, "make room: below 5 GiB or 5 % Ray stops spilling", "warn")


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _writable(output: Path) -> Finding:
    """Create and remove a file where the output is, or where its first missing folder would be made."""
    place = _existing_parent(output)
    probe = place / f".vidseg-doctor-{uuid.uuid4().hex}"
    try:
        with open(probe, "xb"):
            pass
        probe.unlink()
    except OSError as error:
        return Finding("output", "fail", f"{place}: {error.strerror}", "choose another --output")
    return Finding("output", "ok", f"{output} is writable")


def check_ray(config: DoctorConfig) -> Iterator[Finding]:
    """Ray's version and the cluster that $RAY_ADDRESS names; with ``--ray`` one task is run."""
    yield Finding("ray", "ok", metadata.version("ray"))
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        yield Finding("ray cluster", "ok", "RAY_ADDRESS is not set: a run starts its own local Ray")
    elif address not in ("auto", "local"):
        yield _reachable(address)
    if config.ray:
        yield _run_one_task(address or "local")


def _reachable(address: str) -> Finding:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    hint = "start the cluster, correct RAY_ADDRESS, or unset it to run locally"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return Finding("ray cluster", "ok", f"{redact(address)} answers")
    except (OSError, ValueError) as error:
        return Finding("ray cluster", "fail", f"RAY_ADDRESS={redact(address)}: {error}", hint)


def _run_one_task(address: str) -> Finding:
    import ray

    from vidseg_core.kit import local_ray

    start, ours = time.monotonic(), None
    try:
        if address == "local":
            ours = local_ray.LocalRay()
        else:
            ray.init(address=address, **local_ray.QUIET)
        answer = ray.get(ray.remote(num_cpus=1)(lambda: os.getpid()).remote(), timeout=120)
        have = ray.cluster_resources()
    finally:
        ours.stop() if ours else ray.shutdown()
    share = f"{have.get('CPU', 0):.0f} CPU, {have.get('GPU', 0):.0f} GPU"
    room = f"{have.get('object_store_memory', 0) / GIB:.1f} GiB for objects"
    text = f"{share}, {room}, {time.monotonic() - start:.0f} s to the first answer"
    return _judge("ray task", answer > 0, text, "the task gave no answer")


def check_s3(config: DoctorConfig) -> Iterator[Finding]:
    """List the prefix, then write one small object twice with put-if-absent, and remove it."""
    if config.s3 is None:
        return
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = config.s3.removeprefix("s3://").partition("/")
    key = "/".join(part for part in (prefix.strip("/"), f"_vidseg-doctor-{uuid.uuid4().hex}") if part)
    try:
        client = s3_client(attempts=2, read_timeout_s=15)
        where = f"{config.s3} at {client.meta.endpoint_url}"
        listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        yield Finding("s3 list", "ok", f"{where}: {'has objects' if listed.get('KeyCount') else 'empty'}")
    except (BotoCoreError, ClientError) as error:
        yield Finding("s3 list", "fail", f"{config.s3}: {error}", _s3_hint(error))
        return
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"vidseg doctor", IfNoneMatch="*")
    except (BotoCoreError, ClientError) as error:
        yield Finding("s3 write", "fail", str(error), _s3_hint(error))
        return
    try:
        yield _second_put(client, bucket, key)
    finally:
        client.delete_object(Bucket=bucket, Key=key)


def _second_put(client: Any, bucket: str, key: str) -> Finding:
    """A second put-if-absent of the same key must be refused."""
    from botocore.exceptions import ClientError

    from vidseg_core.store.s3_store import IS_THERE

    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"vidseg doctor", IfNoneMatch="*")
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return _judge(
            "s3 write", status in IS_THERE, "conditional put is kept", f"answered {status}, not 412"
        )
    hint = "this service ignores If-None-Match: two jobs could overwrite each other's parts"
    return Finding("s3 write", "fail", "conditional put is ignored", hint)


def _s3_hint(error: Exception) -> str:
    name = type(error).__name__
    if "Credentials" in name:
        return "give credentials: AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
    if "Endpoint" in name or "Connect" in name:
        return "the service cannot be reached: check AWS_ENDPOINT_URL, AWS_REGION and the network"
    return "check the bucket's name and that the credentials may list, put and delete there"


def check_dataset(config: DoctorConfig) -> Iterator[Finding]:
    """The data set that was named: what it holds, what is missing, and whether a few records can be read."""
    if config.dataset is None:
        return
    from vidseg_core.datasets.open import open_dataset
    from vidseg_core.datasets.records import DatasetError
    from vidseg_core.datasets.survey import survey

    try:
        found = survey(open_dataset(config.dataset))
    except DatasetError as error:
        yield Finding("dataset", "fail", str(error), "layouts and options: docs/datasets.md")
        return
    yield Finding("dataset", "ok", f"{found.name}, {len(found.class_names)} classes")
    if found.class_names:
        yield Finding("classes", "ok", ", ".join(found.class_names))
    for split in found.splits:
        text = f"{split.frames} frames of {split.clips} clips, {split.labelled} labelled"
        yield _judge(f"split {split.name}", split.frames > 0, text, "this split is empty", "warn")
    for absent in found.missing:
        yield Finding("missing", "fail" if absent.essential else "warn", absent.text)
    if found.class_names and not any(split.labelled for split in found.splits):
        yield Finding("labels", "fail", "no frame is labelled", "layouts: docs/datasets.md")
    yield from _sampled(found)


def _sampled(found: Survey) -> Iterator[Finding]:
    """What the records read on trial say."""
    if found.sizes:
        sizes = ", ".join(f"{width}x{height}" for (width, height), _ in found.sizes.most_common(4))
        more = "" if len(found.sizes) <= 4 else f" and {len(found.sizes) - 4} more"
        yield Finding("frame size", "ok", sizes + more)
    if shares := found.shares():
        text = ", ".join(f"{name} {share:.1%}" for name, share in shares)
        yield Finding("labels", "ok", f"of {found.sampled} frames: {text}")
    read = found.sampled - len(found.problems)
    hint = "; ".join(found.problems[:3])
    yield _judge("records", not found.problems, f"{read} of {found.sampled} read", hint)


CHECKS: tuple[tuple[str, Callable[[DoctorConfig], Iterator[Finding]]], ...] = (
    ("dataset", check_dataset),
    ("python", check_python),
    ("torch", check_torch),
    ("media", check_media),
    ("opencv", check_opencv),
    ("libraries", check_libraries),
    ("torchvision", check_torchvision),
    ("memory", check_memory),
    ("disk", check_disk),
    ("ray", check_ray),
    ("s3", check_s3),
)
"""In the order of the report: what was asked about by name comes first."""


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """Every finding, in order; a check that raises becomes a ``fail``."""
    for name, check in CHECKS:
        try:
            yield from check(config)
        except Exception as error:
            hint = "reinstall: pip install -c constraints.txt ." if isinstance(error, ImportError) else ""
            yield Finding(name, "fail", f"{type(error).__name__}: {error}", hint)


def run_doctor(config: DoctorConfig) -> int:
    """Print the findings; 1 if one of them is ``fail``, else 0."""
    if config.log == "json":
        findings = []
        for finding in examine(config):
            findings.append(finding)
            print(json.dumps({"event": "check", **asdict(finding)}), flush=True)
    else:
        findings = list(examine(config))
        _print_table(findings)
    return 1 if any(finding.status == "fail" for finding in findings) else 0


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("")
    table.add_column("found, and what to do", overflow="fold")
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for item in findings:
        table.add_row(item.name, Text(item.status, styles[item.status]), Text(item.value))
        if item.hint:
            table.add_row("", "", Text(f"-> {item.hint}"))
    Console().print(table)
    counts = {status: sum(item.status == status for item in findings) for status in styles}
    print(f"\n{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")
