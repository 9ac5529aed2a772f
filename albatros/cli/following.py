"""Following a build: the logs of its jobs, in the order in which they were made, until nothing of it is open."""

from __future__ import annotations

import codecs
import time
from typing import TYPE_CHECKING

from albatros.cli.output import note, write_log
from albatros.domain.states import OPEN_BUILDS, OPEN_JOBS

if TYPE_CHECKING:
    from albatros.client import BuildDetail, Client, Job

POLL_SECONDS = 1.0


def print_logs(client: Client, build_id: int) -> None:
    """The logs of a build's jobs as far as they are written."""
    for job in client.build(build_id)["jobs"]:
        if job["started_at"] is not None:
            _announce(job)
            print_log(client, job["id"])


def print_log(client: Client, job_id: int, attempt: int | None = None) -> None:
    """The log of one job as far as it is written."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in client.log(job_id, attempt):
        write_log(decoder.decode(piece))
    write_log(decoder.decode(b"", final=True))


def follow_job(client: Client, job_id: int) -> None:
    """The log of one job until it has ended."""
    for text in client.follow_log(job_id):
        write_log(text)


def follow_build(client: Client, build_id: int) -> BuildDetail:
    """The logs of every job, then the publications; returns the build as it ended."""
    followed: set[int] = set()
    told: set[tuple[int, str]] = set()
    while True:
        build = client.build(build_id)
        job = next((job for job in build["jobs"] if job["id"] not in followed), None)
        if job is not None:
            followed.add(job["id"])
            if job["state"] in OPEN_JOBS or job["started_at"] is not None:
                _announce(job)
                follow_job(client, job["id"])
            continue
        _tell_publications(build, told)
        if build["state"] not in OPEN_BUILDS:
            return build
        time.sleep(POLL_SECONDS)


def _announce(job: Job) -> None:
    note(f"== job {job['id']}: {job['name']} {job['system']}".rstrip())


def _tell_publications(build: BuildDetail, told: set[tuple[int, str]]) -> None:
    for image in build["images"]:
        for one in image["publications"]:
            if (one["id"], one["state"]) not in told:
                told.add((one["id"], one["state"]))
                trouble = f": {one['message']}" if one["message"] else ""
                note(f"== {one['registry']}: {one['name']}:{one['tag']} {one['state']}{trouble}")
