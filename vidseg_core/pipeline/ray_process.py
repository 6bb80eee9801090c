"""A worker process of Ray, and what Ray knows of others that ended.

The cluster's table of workers says of each how it ended; Ray has no public way to ask for one of them, so a
test pins what is read here.
"""

from __future__ import annotations

from typing import Any

import ray
from ray._private.state import state
from ray._raylet import WorkerID
from ray.core.generated import common_pb2, gcs_pb2

from vidseg_core.pipeline.deaths import Fate

_common: Any = common_pb2  # made at run time
_gcs: Any = gcs_pb2
_FATES = {
    _common.WorkerExitType.Value("SYSTEM_ERROR"): Fate.CRASHED,
    _common.WorkerExitType.Value("NODE_OUT_OF_MEMORY"): Fate.NO_MEMORY,
}
"""Everything else was wanted: `ray.kill`, out of scope, its job ended, it left by itself."""


class RayProcess:
    """The Ray worker that this code runs in (an actor's)."""

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self.name = f"{context.get_worker_id()}_{context.get_node_id()}"
        self.replaces_another = bool(context.was_current_actor_reconstructed)

    def fate_of(self, name: str) -> Fate:
        """What became of another worker of this cluster. A node that is lost, or about to be, is to blame."""
        worker_id, _, node_id = name.partition("_")
        alive = {node["NodeID"]: node["Alive"] for node in ray.nodes()}
        if node_id not in alive:
            return Fate.UNKNOWN
        if not alive[node_id] or node_id in state.get_draining_nodes():
            return Fate.GONE
        row = state._connect_and_get_accessor().get_worker_info(WorkerID.from_hex(worker_id))
        if row is None:
            return Fate.UNKNOWN
        worker = _gcs.WorkerTableData.FromString(row)
        return Fate.RUNNING if worker.is_alive else _FATES.get(worker.exit_type, Fate.GONE)
