"""Ray Train's local mode: what a group of one worker would do is done in this process.

A group takes longer to start than to train the nets of tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from vidseg_core.training import ray_group
from vidseg_core.training.ray_group import GroupLayout, Job


@contextmanager
def trained_here() -> Iterator[None]:
    """Inside, verbs train their nets in this process."""
    in_workers, threads = ray_group._trainer, torch.get_num_threads()

    def trainer(job: Job, layout: GroupLayout) -> Any:
        return in_workers(job, replace(layout, workers=0))

    with pytest.MonkeyPatch.context() as group:
        group.setattr(ray_group, "_trainer", trainer)
        yield
    torch.set_num_threads(threads)
