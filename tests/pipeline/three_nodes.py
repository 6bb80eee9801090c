"""A job on three nodes of one machine; one is killed in the middle, one joins.

    python -m tests.pipeline.three_nodes CLIPS OUTPUT

Prints how many parts were there when the node died and when the other had joined; exits with the job's code.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from tests.pipeline.conftest import small_config
from tests.pipeline.test_kills import SLOW
from vidseg_core.pipeline.segment_job import run_segment

STORE = 150_000_000


def parts(output: Path) -> int:
    return len(list(output.glob("frames/*/part-*.parquet")))


def disturb(cluster: Cluster, victim: object, output: Path, done: threading.Event) -> None:
    """Kills the node once parts come, then adds one and waits until it has joined."""
    while parts(output) < 3 and not done.is_set():
        time.sleep(0.05)
    before = parts(output)
    cluster.remove_node(victim, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    print(f"killed after {before} parts, joined after {parts(output)}", flush=True)


def main(clips: Path, output: Path) -> int:
    config = {"health_check_period_ms": 1000}  # asked, a dead node fails at once, a slow one has its 10 s
    head = {"num_cpus": 1, "object_store_memory": STORE, "_system_config": config}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    done, codes = threading.Event(), []

    def job() -> None:
        codes.append(run_segment(small_config(clips, output, segmenter=SLOW, workers=2)))
        done.set()

    thread = threading.Thread(target=job)
    thread.start()  # nodes are added by the main thread: they want its signals
    disturb(cluster, nodes[0], output, done)
    thread.join()
    ray.shutdown()
    cluster.shutdown()
    return codes[0]


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
