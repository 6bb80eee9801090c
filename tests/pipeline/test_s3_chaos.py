"""Promise: with every fifth request to S3 failing in some way, and the driver killed besides, the table is
the one of an undisturbed run on a local disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.run_digest import run_digest
from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import Killed, run_inline
from tests.s3_faults import faulty
from vidseg_core.store.run import open_run


@pytest.mark.parametrize("seed", [1, 2])
def test_the_rows_are_those_of_a_quiet_run(
    seed: int, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_corpus(tmp_path / "in", (26, 41))
    run_inline(small_config(clips, tmp_path / "out", segmenter="plain", shard_frames=8), 2)
    left = [4]

    def tick(where: str) -> None:
        left[0] -= where == "after commit"
        if left[0] == 0:
            raise Killed

    with faulty(s3.endpoint) as service:
        service.at_random(0.2, seed)
        with monkeypatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", service.endpoint)
            environment.setattr("time.sleep", lambda seconds: None)
            config = small_config(clips, f"{s3.url}/out", segmenter="plain", shard_frames=8)
            with pytest.raises(Killed):
                run_inline(config, 2, tick)
            run_inline(config, 2)
        assert sum(service.done.values()) >= 5, service.done
    assert run_digest(f"{s3.url}/out") == run_digest(tmp_path / "out")
    assert {row["status"] for row in open_run(f"{s3.url}/out").videos().to_pylist()} == {"ok"}
