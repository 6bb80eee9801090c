"""Episode tables in this process, for benchmarks of a few short clips: no Ray, nothing written."""

from __future__ import annotations

from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.episodes.making import make_builder
from vidseg_core.episodes.sources import class_names, dataset_units, read_unit
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_builder import Refused


def tables_here(config: BuildEpisodesConfig) -> list[EpisodeTable]:
    """The tables of `build-episodes` with this configuration; what it would quarantine is left out."""
    making, found = make_builder(config, class_names(config), "cpu"), list[EpisodeTable]()
    for unit in dataset_units(config):
        try:
            frames = read_unit(unit, config.working_size, config.split)
            found.append(
                making.builder.build(unit.clip, unit.segment, frames, fingerprint=making.fingerprint)
            )
        except (Refused, DatasetError) as problem:
            print(f"left out: {problem}", flush=True)
    return found
