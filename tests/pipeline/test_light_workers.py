"""Promise: a process that only plans and decodes never loads torch.

Why: Ray Data sends its settings to every task. Once they named a class that stood beside the engine, and each
decoder loaded torch for it: 1 s of a worker, 6 % of a job with a free net.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ray import cloudpickle
from ray.data import DataContext

from vidseg_core.media import MediaLimits
from vidseg_core.pipeline.branches import data_context
from vidseg_core.pipeline.decode_stage import DecodeStage, decode_units
from vidseg_core.pipeline.plan_stage import PlanStage
from vidseg_core.store.objects import open_store

LOAD = """
import pickle, sys
pickle.load(sys.stdin.buffer)
print(sorted({"torch", "transformers", "matplotlib"} & set(sys.modules)))
"""


def test_what_a_decoder_is_sent_loads_no_torch(tmp_path: Path) -> None:
    decode = DecodeStage(open_store(str(tmp_path)), MediaLimits())
    with data_context(0.1):
        what = (DataContext.get_current(), decode_units, decode, PlanStage)
        sent = cloudpickle.dumps(what)  # pyright: ignore[reportPrivateImportUsage]
    done = subprocess.run([sys.executable, "-c", LOAD], input=sent, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
