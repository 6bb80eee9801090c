"""Where a run's results live: object stores, schemas, mask codec, parts and their commit, reading, export."""

from __future__ import annotations

from vidseg_core.store.compact import CompactResult, compact, compact_video
from vidseg_core.store.errors import CommitConflict, DamagedFile, StoreError, WriteError
from vidseg_core.store.keys import (
    RUN_KEY,
    STATE_PREFIX,
    SUCCESS_KEY,
    VIDEOS_PREFIX,
    ObjectInfo,
    PartKey,
    StateKey,
    parse_part_key,
    parse_state_key,
    part_key,
    state_key,
)
from vidseg_core.store.local_store import LocalStore
from vidseg_core.store.mask_codec import MASK_CODEC, decode_mask, encode_mask
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.parts import (
    CommitResult,
    FrameLike,
    commit_part,
    committed_parts,
    encode_part,
    encode_videos,
    list_states,
)
from vidseg_core.store.run import Run, open_run
from vidseg_core.store.schema import (
    FRAMES_SCHEMA,
    PSEUDO_SCHEMA,
    REGION_SCHEMA,
    SCHEMA_VERSION,
    VIDEOS_SCHEMA,
)

__all__ = [
    "FRAMES_SCHEMA",
    "PSEUDO_SCHEMA",
    "MASK_CODEC",
    "REGION_SCHEMA",
    "RUN_KEY",
    "SCHEMA_VERSION",
    "STATE_PREFIX",
    "SUCCESS_KEY",
    "VIDEOS_PREFIX",
    "VIDEOS_SCHEMA",
    "CommitConflict",
    "CommitResult",
    "CompactResult",
    "DamagedFile",
    "FrameLike",
    "LocalStore",
    "ObjectInfo",
    "ObjectStore",
    "PartKey",
    "Run",
    "StateKey",
    "StoreError",
    "WriteError",
    "commit_part",
    "committed_parts",
    "compact",
    "compact_video",
    "decode_mask",
    "encode_mask",
    "encode_part",
    "encode_videos",
    "list_states",
    "open_run",
    "open_store",
    "parse_part_key",
    "parse_state_key",
    "part_key",
    "state_key",
]
