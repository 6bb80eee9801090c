"""Whose output is this: the run's fingerprint, written once, checked by every driver that comes later.

Invariant: an output holds rows of one fingerprint only. The first driver puts the manifest and the list of
inputs if they are absent; every other one must agree with both or is refused with what differs.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.kit.claim import OTHER_RUN, FingerprintMismatch, as_json, claim, digest_of, require_same
from vidseg_core.plan.video_list import NEEDED, SCHEMA, VideoInput, VideoList
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import INPUTS_KEY, MANIFEST_KEY
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.schema import SCHEMA_VERSION
from vidseg_core.store.small_files import OTHER_OUTPUT, read_object, read_table

_SHOWN = 5
REVISION = 4
"""Raised whenever the same options, weights and frames give other rows than before."""


class InputsDiffer(FingerprintMismatch):
    """The inputs are not those that the run was begun with."""


def fingerprint(fields: dict[str, Any], segmenter_digest: str, flow_digest: str = "") -> dict[str, Any]:
    """The manifest.

    Every option that changes a row, the digests of the weights (the flow's only where it is a net), the
    schema version, the `REVISION` and their SHA-256.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "revision": REVISION,
        "weights_sha256": segmenter_digest,
        "config": fields,
    }
    if flow_digest:
        content["flow_weights_sha256"] = flow_digest
    plain = as_json(content)
    return plain | {"fingerprint": digest_of(plain)}


def claim_output(store: ObjectStore, manifest: dict[str, Any], inputs: Sequence[VideoInput]) -> bool:
    """Write the manifest, or check that the one that is there agrees.

    True when the output was empty of a run.
    """
    fresh = claim(store, MANIFEST_KEY, manifest, lambda: _check_manifest(store, manifest))
    if not store.put_if_absent(INPUTS_KEY, _inputs_bytes(inputs)):
        _check_inputs(store, inputs)
    return fresh


def check_claim(store: ObjectStore, manifest: dict[str, Any], inputs: Sequence[VideoInput]) -> None:
    """Check an output that has been claimed; `FingerprintMismatch` says what differs."""
    _check_manifest(store, manifest)
    if store.exists(INPUTS_KEY):
        _check_inputs(store, inputs)


def read_manifest(store: ObjectStore) -> dict[str, Any]:
    """The manifest of the run in `store`; `FileNotFoundError` if there is none."""
    found = read_object(store, MANIFEST_KEY, {"config!": {}, "fingerprint!": str}, OTHER_OUTPUT)
    if found["fingerprint"] != digest_of(
        {name: said for name, said in found.items() if name != "fingerprint"}
    ):
        where = f"{store.root}: {MANIFEST_KEY}"
        raise DamagedFile(f"{where} is damaged (its fingerprint is another's); {OTHER_OUTPUT}")
    return found


def read_inputs(store: ObjectStore) -> pa.Table:
    """The videos of the run in `store` (`plan.video_list.SCHEMA`); `FileNotFoundError` as above."""
    later = [name for name in SCHEMA.names if name not in NEEDED]
    return read_table(
        store.get(INPUTS_KEY), f"{store.root}: {INPUTS_KEY}", OTHER_OUTPUT, SCHEMA, NEEDED, later
    )


def _check_manifest(store: ObjectStore, manifest: Mapping[str, Any]) -> None:
    there = read_manifest(store)
    if there["fingerprint"] != manifest["fingerprint"]:
        require_same(_options(there), _options(manifest), store.root)
        # an option without a value, and none of that name, are the same to the line above
        raise FingerprintMismatch(f"--output {store.root} {OTHER_RUN}. Choose another output.")


def _options(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the rows, without a level between."""
    beside = {name: value for name, value in manifest.items() if name not in ("config", "fingerprint")}
    return beside | manifest["config"]


def _inputs_table(inputs: Sequence[VideoInput]) -> pa.Table:
    videos = inputs if isinstance(inputs, VideoList) else VideoList.of(inputs)
    return videos.table.sort_by("video_id")


def _inputs_bytes(inputs: Sequence[VideoInput]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_inputs_table(inputs), sink, compression="zstd")
    return sink.getvalue()


def _check_inputs(store: ObjectStore, inputs: Sequence[VideoInput]) -> None:
    there = read_inputs(store)
    ours = _inputs_table(inputs)
    if there.equals(ours):
        return
    old = {row["video_id"]: row for row in there.to_pylist()}
    new = {row["video_id"]: row for row in ours.to_pylist()}
    changed = [new[v]["uri"] for v in new if v in old and new[v] != old[v]]
    added = [new[v]["uri"] for v in new if v not in old]
    missing = [old[v]["uri"] for v in old if v not in new]
    found = [("changed since", changed), ("not part of it", added), ("missing now", missing)]
    parts = [f"{len(uris)} {what} ({_some(uris)})" for what, uris in found if uris]
    raise InputsDiffer(
        f"--input: {store.root} was begun with other videos: {'; '.join(parts)}. "
        "Give the same inputs to continue that run, or choose another output."
    )


def _some(uris: Sequence[str]) -> str:
    return ", ".join(uris[:_SHOWN]) + (", ..." if len(uris) > _SHOWN else "")
