"""Where a run writes, and what must agree for it to write there: asked by the job and by ``--dry-run``."""

from __future__ import annotations

from typing import Any

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.assemble import NetFacts, check_parts, plugin_sources
from vidseg_core.kit.manifest import fingerprint
from vidseg_core.store.errors import StoreError
from vidseg_core.store.objects import ObjectStore, open_store


def open_output(output: str) -> ObjectStore:
    """The store of ``--output``; ``ConfigError`` if there cannot be one."""
    try:
        return open_store(output)
    except StoreError as problem:
        raise ConfigError("--output", str(problem)) from problem


def manifest_of(config: SegmentConfig, net: NetFacts) -> dict[str, Any]:
    """What the output must agree with; ``ConfigError`` for parts that cannot be built."""
    check_parts(config)
    fields = {**config.fingerprint_fields(), **plugin_sources(config)}
    return fingerprint(fields, net.digest, net.flow_digest)
