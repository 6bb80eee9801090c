"""`WorkerWatch` as Ray Data calls it.

On its own, because Ray Data sends its settings, and with them this class, to every task: what is imported
here is imported by each worker, so that a decoder would load torch if this stood beside the engine.
"""

from __future__ import annotations

from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

from vidseg_core.kit.worker_watch import WorkerWatch


class DataWatch(WorkerWatch, ExecutionCallback):
    """Ray Data makes one for each execution of a graph, and ends that with what it raises."""

    def on_execution_step(self, executor: Any) -> None:
        """Called several times a second, also while nothing comes out."""
        self.look()
