"""Promise: ``ray up cluster.yaml`` accepts the file, and what it starts is bounded and not open to the world.

Ray's own schema lets nonsense pass (a group may ask for more workers than the cluster allows), and mistakes
show only when machines are already paid for; so they are looked for here, offline.
"""

from __future__ import annotations

import json
import re
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def workers(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {k: v for k, v in cluster["available_node_types"].items() if k != cluster["head_node_type"]}


def test_rays_own_schema_accepts_it(cluster: dict[str, Any]) -> None:
    schema = json.loads((resources.files("ray.autoscaler") / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)


def test_rays_own_checks_accept_it_with_rays_defaults(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


def test_the_number_of_workers_is_bounded_and_reachable(cluster: dict[str, Any]) -> None:
    groups = workers(cluster)
    for group in groups.values():
        assert 0 <= group["min_workers"] <= group["max_workers"] <= cluster["max_workers"]
    assert cluster["max_workers"] == sum(group["max_workers"] for group in groups.values())
    assert 1 <= cluster["idle_timeout_minutes"] <= 30


def test_workers_are_spot_and_the_head_is_not(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}, "no work on the head: losing it loses the cluster"
    for group in workers(cluster).values():
        assert group["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_both_sides_use_the_token_and_nothing_is_served_to_the_world(cluster: dict[str, Any]) -> None:
    assert "--env=RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert any(path.endswith(".ray/auth_token") for path in cluster["file_mounts"])
    commands = " ".join(cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"])
    assert "--include-dashboard=false" in commands
    assert "0.0.0.0" not in commands and "--dashboard-host" not in commands


def test_the_images_hold_the_pinned_ray(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    images = re.findall(r"rayproject/ray:([\d.]+)-", (ROOT / "cluster.yaml").read_text())
    assert images and set(images) == {pinned.group(1)}


def test_no_secret_is_in_the_file() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"AKIA|aws_secret|password", text, re.IGNORECASE)


def test_the_constraints_cover_what_the_project_asks_for() -> None:
    names = {line.partition("==")[0].lower().replace("_", "-") for line in constraint_lines()}
    needed = [re.split(r"[\[<>=! ;]", text)[0] for text in metadata.requires("vidseg") or []]
    assert [name for name in needed if name.lower().replace("_", "-") not in names] == []


def constraint_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_are_exact_versions_from_any_index() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in constraint_lines())
