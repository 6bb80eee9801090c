"""Promise: a config that exists is valid, and a refused value is named as the person typed it.

What is not caught here fails hours later on a worker, with a traceback instead of the option's name.
"""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.config import (
    ConfigError,
    MaskConfig,
    MediaConfig,
    PropagationConfig,
    RegionsConfig,
    SchedulerConfig,
    SegmentConfig,
    TtaConfig,
)
from vidseg_core.config.schema import flat_dict, from_dict, option_types, redact, to_dict


def make(**changes: Any) -> SegmentConfig:
    return SegmentConfig(**{"input": ("clips",), "output": "run", "segmenter": "plain", **changes})


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"input": ()}, "--input"),
        ({"input": ("",)}, "--input"),
        ({"input": "clips"}, "--input"),
        ({"input": ("a\0b",)}, "--input"),
        ({"output": " "}, "--output"),
        ({"segmenter": "plane"}, "--segmenter"),
        ({"segmenter": "smp:"}, "--segmenter"),
        ({"num_classes": 0}, "--num_classes"),
        ({"num_classes": 257}, "--num_classes"),
        ({"working_size": "4k"}, "--working_size"),
        ({"working_size": "0"}, "--working_size"),
        ({"working_size": "512x"}, "--working_size"),
        ({"working_size": "99999"}, "--working_size"),
        ({"dtype": "fp16"}, "--dtype"),
        ({"device": "tpu"}, "--device"),
        ({"segment_frames": -1}, "--segment_frames"),
        ({"shard_frames": 0}, "--shard_frames"),
        ({"shard_frames": 5000}, "--shard_frames"),
        ({"seed": -1}, "--seed"),
        ({"workers": -1}, "--workers"),
        ({"workers": True}, "--workers"),
        ({"decoders": -1}, "--decoders"),
        ({"executor": "dask"}, "--executor"),
        ({"executor": "local", "ray_address": "head:6379"}, "--executor"),
        ({"executor": "local", "workers": 2}, "--executor"),
        ({"executor": "local", "decoders": 2}, "--executor"),
        ({"lanes": 0}, "--lanes"),
        ({"key_batch": 0}, "--key_batch"),
        ({"threads": 0}, "--threads"),
        ({"gpus_per_worker": 0.0}, "--gpus_per_worker"),
        ({"gpus_per_worker": 1.5}, "--gpus_per_worker"),
        ({"gpus_per_worker": 2.0}, "--gpus_per_worker"),
        ({"flow_threads": -1}, "--flow_threads"),
        ({"gpus_per_worker": 0.5, "device": "cpu"}, "--gpus_per_worker"),
        ({"object_store_mb": 1}, "--object_store_mb"),
        ({"limit": 0}, "--limit"),
        ({"log": "xml"}, "--log"),
        ({"regions": RegionsConfig(grid="16x1"), "working_size": "128"}, "--regions.grid"),
        ({"regions": RegionsConfig(grid="3x3"), "working_size": "40x512"}, "--regions.grid"),
        ({"regions": RegionsConfig(grid="2x2", context="joint"), "budget": 0.04}, "--regions.context"),
        ({"regions": RegionsConfig(align=64)}, "--regions.align"),
        ({"regions": RegionsConfig(overlap=8)}, "--regions.overlap"),
        ({"regions": RegionsConfig(align=64), "budget": 0.04}, "--regions.align"),
        ({"regions": RegionsConfig(grid="1x3", overlap=72), "working_size": "200"}, "--regions.overlap"),
    ],
)
def test_a_bad_value_is_refused_by_its_option_name(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    assert caught.value.option == option
    assert str(caught.value).startswith(f"{option}: ")


@pytest.mark.parametrize(
    ("part", "changes", "option"),
    [
        (SchedulerConfig, {"name": "warp_eror"}, "--scheduler.name"),
        (SchedulerConfig, {"interval": 0}, "--scheduler.interval"),
        (SchedulerConfig, {"max_interval": 0}, "--scheduler.max_interval"),
        (SchedulerConfig, {"name": "fixed", "interval": 91}, "--scheduler.max_interval"),
        (SchedulerConfig, {"name": "warp_error", "interval": 24}, "--scheduler.interval"),
        (SchedulerConfig, {"name": "every", "interval": 24}, "--scheduler.interval"),
        (SchedulerConfig, {"name": "fixed", "threshold": 1.0}, "--scheduler.threshold"),
        (SchedulerConfig, {"threshold": -1.0}, "--scheduler.threshold"),
        (SchedulerConfig, {"threshold": float("nan")}, "--scheduler.threshold"),
        (PropagationConfig, {"name": "flowwarp"}, "--propagation.name"),
        (PropagationConfig, {"level": "label"}, "--propagation.level"),
        (PropagationConfig, {"sides": "three"}, "--propagation.sides"),
        (PropagationConfig, {"flow": "diss"}, "--propagation.flow"),
        (PropagationConfig, {"flow_weights": "net.safetensors"}, "--propagation.flow_weights"),
        (PropagationConfig, {"flow_size": 16}, "--propagation.flow_size"),
        (PropagationConfig, {"delay": 5}, "--propagation.delay"),
        (TtaConfig, {"scales": (0.0,)}, "--tta.scales"),
        (TtaConfig, {"scales": (1.0, 8.0)}, "--tta.scales"),
        (TtaConfig, {"scales": (1.0, 1.0)}, "--tta.scales"),
        (TtaConfig, {"scales": (float("nan"),)}, "--tta.scales"),
        (RegionsConfig, {"grid": "2"}, "--regions.grid"),
        (RegionsConfig, {"grid": "0x2"}, "--regions.grid"),
        (RegionsConfig, {"grid": "17x2"}, "--regions.grid"),
        (RegionsConfig, {"overlap": -1}, "--regions.overlap"),
        (RegionsConfig, {"align": 0}, "--regions.align"),
        (RegionsConfig, {"context": "some"}, "--regions.context"),
        (MaskConfig, {"size": "big"}, "--masks.size"),
        (MediaConfig, {"max_pixels": 0}, "--media.max_pixels"),
        (MediaConfig, {"decode_deadline_s": 0.0}, "--media.decode_deadline_s"),
        (MediaConfig, {"decode_deadline_s": float("inf")}, "--media.decode_deadline_s"),
        (MediaConfig, {"memory_mib": 1}, "--media.memory_mib"),
    ],
)
def test_a_bad_value_of_a_part_is_refused_by_its_dotted_name(
    part: type, changes: dict[str, Any], option: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        part(**changes)
    assert caught.value.option == option


def test_an_unknown_name_comes_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'warp_error'\?"):
        SchedulerConfig(name="warp_eror")


@pytest.mark.parametrize(
    "name", ["my_nets.cars:Net", "smp:DeepLabV3Plus/resnet50", "hf:nets/segformer", "constant"]
)
def test_families_and_plug_ins_are_names_too(name: str) -> None:
    assert make(segmenter=name).segmenter == name


def test_a_plug_in_scheduler_may_have_a_threshold() -> None:
    assert SchedulerConfig(name="mine.keys:Policy", threshold=0.5).threshold == 0.5


@pytest.mark.parametrize(("text", "spec"), [("512", 512), ("384x512", "384x512"), ("0064", 64)])
def test_working_size_is_a_longest_side_or_height_by_width(text: str, spec: int | str) -> None:
    assert make(working_size=text).working_size_spec == spec


def test_configs_are_frozen_and_travel_to_workers() -> None:
    config = make(scheduler=SchedulerConfig(name="random", interval=7))
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lanes = 2  # type: ignore[misc]


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("--lanes", "too many")))
    assert (error.option, str(error)) == ("--lanes", "--lanes: too many")


# fingerprint ----------------------------------------------------------------------------------------------

SPEED_ONLY = {
    "input",
    "output",
    "weights",
    "propagation.flow_weights",
    "propagation.weights",
    "scheduler.policy",
    "device",
    "media.sequence_fps",  # the addresses of the inputs say it
    "media.max_pixels",
    "media.decode_deadline_s",
    "media.memory_mib",
    "preview",
    "budget",  # what it chooses is there: scheduler.*
    "max_drop",
    "calibration.clips",
    "calibration.clip_frames",
    "calibration.schedulers",
    "calibration.propagators",
    "calibration.grids",
    "calibration.quality",
    "calibration.audit_frames",
    "executor",
    "workers",
    "decoders",
    "lanes",
    "gpus_per_worker",
    "flow_threads",
    "ray_address",
    "retry_quarantined",
    "repair",
    "object_store_mb",
    "state_mb",
    "dry_run",
    "limit",
    "log",
}


def test_every_option_is_either_in_the_fingerprint_or_known_not_to_change_rows() -> None:
    every_kind = [
        PropagationConfig(sides="one", latency="low"),
        PropagationConfig(name="match", sides="two"),
        PropagationConfig(name="clockwork", level="features", sides="one", clock=2),
    ]
    fingerprinted = {name for kind in every_kind for name in make(propagation=kind).fingerprint_fields()}
    fingerprinted |= set(
        make(regions=RegionsConfig(grid="2x2", align=8, context="joint")).fingerprint_fields()
    )
    assert fingerprinted | SPEED_ONLY == set(option_types(SegmentConfig))
    assert not fingerprinted & SPEED_ONLY


def test_one_region_is_the_run_that_it_was() -> None:
    """An option that is off changes no fingerprint: runs that older versions began go on."""
    assert not any(name.startswith("regions") for name in make().fingerprint_fields())
    cut = make(regions=RegionsConfig(grid="2x2")).fingerprint_fields()
    assert {name for name in cut if name.startswith("regions")} == {"regions.grid", "regions.overlap"}
    assert make(regions=RegionsConfig(grid="02x1")) == make(regions=RegionsConfig(grid="2x1"))
    assert "regions 2x1 with overlap 16" in make(regions=RegionsConfig(grid="2x1")).describe()


def test_masks_that_became_others_are_another_run() -> None:
    """A run that an older version began went on with another rule: its rows were of both."""
    split = make(scheduler=SchedulerConfig(name="split")).fingerprint_fields()
    assert split["scheduler.name"] == "split, edition 2"
    checked = PropagationConfig(name="match")
    assert make(propagation=checked).fingerprint_fields()["propagation.name"] == "match, edition 4"
    adapting = make(propagation=PropagationConfig(name="match", adapt_steps=1))
    assert adapting.fingerprint_fields()["propagation.name"] == "match, edition 5"
    for same in (
        PropagationConfig(name="match", self_check=False),
        PropagationConfig(name="match", sides="one"),
    ):
        fields = make(propagation=same).fingerprint_fields()
        assert fields["propagation.name"] == "match, edition 3", (
            "another rule of the self-check changed nothing"
        )
    assert make().fingerprint_fields()["propagation.name"] == "flow_warp"


def test_a_run_with_low_latency_says_so() -> None:
    late = make(propagation=PropagationConfig(sides="one", latency="low", delay=4))
    assert "one-sided over dis flow at 256 px, low latency (delay 4); " in late.describe()
    assert "latency" not in make().describe()


def test_the_fingerprint_does_not_see_how_fast_a_run_is() -> None:
    slow = make()
    fast = make(lanes=16, workers=8, decoders=4, log="json", limit=3, input=("other",), output="elsewhere")
    assert slow.fingerprint_fields() == fast.fingerprint_fields()


def test_the_fingerprint_sees_what_changes_a_mask() -> None:
    changed = make(propagation=PropagationConfig(sides="one"))
    assert changed.fingerprint_fields() != make().fingerprint_fields()


# round trips and secrets ----------------------------------------------------------------------------------

longest = st.integers(90, 10_000)
even = st.builds(
    SchedulerConfig,
    name=st.sampled_from(["fixed", "random", "my.keys:Policy"]),
    interval=st.integers(1, 90),
    max_interval=longest,
)
uneven = st.builds(SchedulerConfig, name=st.sampled_from(["every", "frame_difference"]), max_interval=longest)
schedulers = even | uneven
configs = st.builds(
    SegmentConfig,
    input=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0:"), min_size=1), min_size=1),
    output=st.sampled_from(["run", "s3://bucket/run", "läuft [1]"]),
    segmenter=st.sampled_from(["plain", "hf:org/name", "my.nets:Net"]),
    scheduler=schedulers,
    media=st.builds(MediaConfig, decode_deadline_s=st.floats(0.001, 1e6)),
    segment_frames=st.integers(0, 10**9),
    gpus_per_worker=st.none() | st.floats(0.01, 1),
    num_classes=st.none() | st.integers(1, 256),
    dry_run=st.booleans(),
)


@given(config=configs)
def test_yaml_round_trip_gives_the_same_config(config: SegmentConfig) -> None:
    assert from_dict(SegmentConfig, yaml.safe_load(config.to_yaml())) == config


def test_options_are_the_leaves_of_the_dump() -> None:
    assert sorted(flat_dict(make())) == sorted(option_types(SegmentConfig))


@pytest.mark.parametrize("field", ["input", "output", "weights", "ray_address"])
def test_an_address_with_credentials_is_refused_without_repeating_them(field: str) -> None:
    value: Any = "s3://AKIAEXAMPLE:hunter2@bucket/clips"
    with pytest.raises(ConfigError) as caught:
        make(**{field: (value,) if field == "input" else value})
    assert "hunter2" not in str(caught.value) and "environment" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("https://h/a.mp4?X-Amz-Signature=abc&x=1", "https://h/a.mp4?X-Amz-Signature=***&x=1"),
        ("https://h/a.mp4?token=abc", "https://h/a.mp4?token=***"),
        ("https://ghp_abc@h/a.mp4", "https://***@h/a.mp4"),
        ("http://me@firm.com:hunter2@h/a@b.mp4", "http://***@h/a@b.mp4"),
        ("https://h/a.mp4?v=1&api_key=abc", "https://h/a.mp4?v=1&api_key=***"),
        ("https://h?x=a@b", "https://h?x=a@b"),
        ("gs://bucket@home/a.mp4", "gs://bucket@home/a.mp4"),
        ("s3://bucket/clip?.mp4", "s3://bucket/clip?.mp4"),
        ("clips/a:b@c?token=1.mp4", "clips/a:b@c?token=1.mp4"),
    ],
)
def test_redaction_hides_secrets_and_leaves_names_alone(text: str, shown: str) -> None:
    assert redact(text) == shown


# files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"intput": "a"}, "--config r.yaml: intput: no such option (did you mean 'input'?)"),
        ({"scheduler": {"intervall": 3}}, "scheduler.intervall: no such option (did you mean 'interval'?)"),
        ({"interval": 3}, "interval: no such option (did you mean 'interval'?)"),
        ({"scheduler": "fixed"}, "scheduler: must be a mapping of options, got 'fixed'"),
        ({"lanes": "3"}, "lanes: must be a whole number, got '3'"),
        ({"lanes": True}, "lanes: must be a whole number, got True"),
        ({"dry_run": 1}, "dry_run: must be true or false, got 1"),
        ({"device": "tpu"}, "device: must be one of auto, cpu, cuda, got 'tpu'"),
        ({"output": None}, "output: must be a text, got None"),
        ({"lanes": 0}, "lanes: must be a whole number between 1 and 256 segment(s), got 0"),
    ],
)
def test_a_file_is_held_to_the_same_schema(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(
            SegmentConfig,
            {"input": ["a"], "output": "b", "segmenter": "plain", **values},
            source="--config r.yaml",
        )
    assert message in str(caught.value)
    assert str(caught.value).startswith("--config r.yaml: ")


def test_what_is_required_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="--output: is required"):
        from_dict(SegmentConfig, {"input": ["a"]})


def test_files_may_write_a_number_for_a_text_and_one_text_for_a_list() -> None:
    needed = {"input": "a", "output": "b", "segmenter": "plain"}
    config = from_dict(SegmentConfig, {**needed, "working_size": 256, "scheduler": None})
    assert (config.input, config.working_size, config.scheduler) == (("a",), "256", SchedulerConfig())


def test_to_dict_holds_plain_values_only() -> None:
    text = yaml.safe_dump(to_dict(make()))
    assert "!!" not in text


def test_describe_names_net_scheduler_and_propagation() -> None:
    text = make(scheduler=SchedulerConfig(name="fixed", interval=25)).describe()
    assert "plain" in text and "fixed (interval 25" in text and "two-sided" in text and "dis" in text
