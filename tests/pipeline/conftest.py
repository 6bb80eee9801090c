"""Small clips, and a way to run the job inside this process."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.clips import make_corpus
from tests.pipeline.decoders import decoder_of
from vidseg_core.calibration.dial import SampleDial
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline.segment_job import run_segment


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with spaces and non-ASCII letters in their names."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def run_job(local_ray: None) -> Callable[..., tuple[int, str]]:
    """Run the job on the session's Ray; gives exit code and what it printed."""

    def run(folder: Path | str, output: Path | str, **options: Any) -> tuple[int, str]:
        text = io.StringIO()
        code = run_segment(small_config(folder, output, **options), Reporter("text", text), SampleDial())
        return code, text.getvalue()

    return run


BOTH = (pytest.param("local", id="local"), pytest.param("ray", id="ray", marks=pytest.mark.ray))
"""Values of a parameter `executor`."""
OPTIONS_OF: dict[str, dict[str, Any]] = {
    "local": {"executor": "local", "workers": 1},
    "ray": {"executor": "ray", "workers": 2, "object_store_mb": 200},
}


RunJob = Callable[..., tuple[int, str]]
"""Input, output and options in; exit code and what was printed out."""


@pytest.fixture
def run_locally() -> RunJob:
    """Run the job by the local executor, inside this process."""
    return _runner("local")


@pytest.fixture(params=BOTH)
def run_on_either(request: pytest.FixtureRequest) -> RunJob:
    """Run the job by each of the executors, with one engine: on Ray each is a process that imports torch."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    return _runner(request.param, workers=1)


def _runner(executor: str, **always: Any) -> RunJob:
    def run(folder: Path | str, output: Path | str, **options: Any) -> tuple[int, str]:
        text = io.StringIO()
        config = small_config(folder, output, **(options | OPTIONS_OF[executor] | always))
        with decoder_of(config) as decoder:
            return run_segment(config, Reporter("text", text), SampleDial(), decoder=decoder), text.getvalue()

    return run


def small_config(folder: Path | str, output: Path | str, **options: Any) -> SegmentConfig:
    """A configuration that makes small clips exercise segments, units, shards and both sides."""
    defaults: dict[str, Any] = {
        "segmenter": "plain",
        "scheduler": SchedulerConfig(name="fixed", interval=7, max_interval=20),
        "propagation": PropagationConfig(flow_size=96),
        "segment_frames": 30,
        "shard_frames": 8,
        "workers": 2,
    }
    return SegmentConfig(input=(str(folder),), output=str(output), **(defaults | options))
