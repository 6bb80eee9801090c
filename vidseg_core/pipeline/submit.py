"""A verb as a job of a Ray cluster, under a name that is made from the command itself.

Model: the submission id is a digest of verb and options. Giving the same command again finds the job that is
there: one that runs is followed, one that has ended is begun again as the next attempt (`-2`, `-3`), and the
run goes on where the last attempt stood, since everything it needs is in the output. So the command may be
repeated by a person, a cron job or a retry loop without harm.

No environment is sent along: credentials are the cluster's own (instance roles, mounted files).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_fixed

from vidseg_core.config.cli import EXIT_QUARANTINED
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.submit import SubmitConfig
from vidseg_core.kit.progress import spoke
from vidseg_core.kit.ray_session import ClusterError

_OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_POLL_S = 1.0
_ENTRY_BYTES = 100
"""What a file takes in an archive beside its contents and its name, twice."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job on the cluster."""

    submission_id: str
    number: int
    status: str

    @property
    def over(self) -> bool:
        return self.status in _OVER


def job_name(verb: str, arguments: Sequence[str]) -> str:
    """A job's name, the same for the same command, whoever gives it."""
    digest = hashlib.sha256(json.dumps([verb, *arguments]).encode()).hexdigest()[:12]
    return f"vidseg-{verb}-{digest}"


def entrypoint(verb: str, arguments: Sequence[str]) -> str:
    """What the cluster runs; needs the package there, not its script on the path."""
    return shlex.join(["python", "-m", "vidseg_core", verb, *arguments])


def submit(config: SubmitConfig, verb: str, arguments: Sequence[str]) -> int:
    """Submit (or find) the job, follow it if asked to; the exit code of its driver."""
    name, command = job_name(verb, arguments), entrypoint(verb, arguments)
    if config.working_dir is not None and not config.stop:
        check_size(config.working_dir)
    if config.dry_run:
        _say(f"would submit {name} to {config.place}: {command}")
        return 0
    client = _client(config)
    last = _last_attempt(client, name)
    if config.stop:
        return _stop(client, name, last)
    if last is not None and not last.over:
        _say(f"{last.submission_id} is there already ({last.status.lower()})")
        job = last.submission_id
    else:
        number = 1 if last is None else last.number + 1
        job = name if number == 1 else f"{name}-{number}"
        job = _begin(client, Attempt(job, number, "NEW"), name, command, config.working_dir, verb)
    if not config.follow:
        return 0
    return _follow(client, job)


def check_size(folder: str) -> None:
    """`ConfigError` for a folder that is more than a job server takes; it is sent as it is, uncompressed."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE as LIMIT
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE
    from ray._private.runtime_env import packaging

    root, sizes = Path(folder).resolve(), dict[Path, int]()

    def weigh(path: Path) -> None:
        if path.is_file():
            name = path.relative_to(root)
            sizes[name] = path.stat().st_size + _ENTRY_BYTES + 2 * len(str(name))

    silent = logging.getLogger(f"{__name__}.silent")
    silent.disabled = True
    heeds_git = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    packaging._dir_travel(root, [], weigh, include_gitignore=heeds_git, logger=silent)
    total, largest = sum(sizes.values()), max(sizes, key=lambda name: sizes[name], default=Path())
    if total > LIMIT:
        problem = (
            f"{folder} takes {total / 2**20:,.0f} MiB, more than the {LIMIT / 2**20:.0f} MiB that a job "
            f"server accepts (the largest file: {largest}, {sizes[largest] / 2**20:,.0f} MiB); list in its "
            ".rayignore what need not go along"
        )
        raise ConfigError("--working_dir", problem)


def _client(config: SubmitConfig) -> Any:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as problem:
        raise ClusterError(
            f"submitting needs ray[default]: pip install 'vidseg[cluster]' ({problem})"
        ) from None
    try:
        return JobSubmissionClient(config.place)
    except Exception as problem:  # whatever the transport raises
        text = " ".join(str(problem).split())
        raise ClusterError(f"no Ray cluster answers at {config.place}: {text[:300]}") from None


def _begin(client: Any, attempt: Attempt, name: str, command: str, working_dir: str | None, verb: str) -> str:
    """Submit an attempt, unless somebody has begun it meanwhile; the id of the job that is there."""
    try:
        _send(client, attempt.submission_id, command, working_dir, verb)
    except RuntimeError as problem:
        there = _last_attempt(client, name)
        if there is None or there.number < attempt.number:
            text = " ".join(str(problem).split())
            raise ClusterError(f"the cluster refuses {attempt.submission_id}: {text[:300]}") from None
        _say(f"{there.submission_id} is there already ({there.status.lower()})")
        return there.submission_id
    _say(f"submitted {attempt.submission_id}: {command}")
    return attempt.submission_id


@retry(
    retry=retry_if_exception_message(match="(?s).*try again later"),
    stop=stop_after_delay(60),
    wait=wait_fixed(1),
    reraise=True,
)
def _send(client: Any, job: str, command: str, working_dir: str | None, verb: str) -> None:
    """A cluster that has only just come up wants to be asked again."""
    client.submit_job(
        entrypoint=command,
        submission_id=job,
        runtime_env={"working_dir": working_dir} if working_dir else None,
        metadata={"vidseg_verb": verb},
    )


def _last_attempt(client: Any, name: str) -> Attempt | None:
    pattern = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    found = []
    for job in client.list_jobs():
        match = pattern.fullmatch(job.submission_id or "")
        if match:
            found.append(Attempt(job.submission_id, int(match[1] or 1), str(job.status.value)))
    return max(found, key=lambda attempt: attempt.number, default=None)


def _stop(client: Any, name: str, last: Attempt | None) -> int:
    if last is None or last.over:
        _say(f"{name} does not run")
        return 0
    client.stop_job(last.submission_id)
    _say(f"{last.submission_id} is asked to end; the same command goes on from there")
    return 0


def _follow(client: Any, job: str) -> int:
    try:
        asyncio.run(_print_logs(client, job))
    except KeyboardInterrupt:
        _say(f"{job} goes on without you; the same command follows it again, --stop ends it")
        return 1
    info = client.get_job_info(job)
    while str(info.status.value) not in _OVER:
        time.sleep(_POLL_S)
        info = client.get_job_info(job)
    code = info.driver_exit_code
    aside = ", finished with videos quarantined" if code == EXIT_QUARANTINED else ""
    _say(f"{job}: {info.status.value.lower()}{aside}")
    if code is not None and code >= 0:  # below: it was ended by a signal
        return int(code)
    return 0 if info.status.value == "SUCCEEDED" else 1


async def _print_logs(client: Any, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        sys.stderr.write(lines)
        sys.stderr.flush()
        spoke()


def _say(text: str) -> None:
    print(f"vidseg submit: {text}", file=sys.stderr)
