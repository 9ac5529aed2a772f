"""Empty Jobs through Albatros on a real Nomad, beside the same jobs registered by hand."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import cast

from sqlalchemy import func, select

from albatros import __version__
from albatros.db import migrate
from albatros.db.builds import NewBuild, create_builds
from albatros.db.models import Attempt, Job
from albatros.db.session import connect
from albatros.db.signals import Topic
from albatros.db.writer import Writer
from albatros.domain.states import Trigger
from albatros.executors.base import StartOrder
from albatros.executors.nomad import NomadExecutor
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_job import TASK, TOKEN_ITEM, RunnerSource, job_id, render, variable_path
from albatros.flows.dispatch import Dispatcher
from albatros.forges.base import ForgeAdapter
from albatros.http.app import create_app
from albatros.http.deps import AppContext
from albatros.http.serving import WebServer, bind
from albatros.roles import Loop, Scheduler, stop_all
from albatros.settings import NomadSettings
from bench.report import Figure
from bench.world import wait_for
from tests.services.nomad import NomadServer, start_dev
from tests.support.flows import KEY, World, settings_of
from tests.support.nomad_place import serve_zipapp
from tests.support.web import Bundle
from tests.support.zipapps import zipapp

JOBS = 500
SINGLE = 20
AIM_RATIO = 0.9
PATIENCE_SECONDS = 600
ANSWERED = "the same program, answered at once by a server that does nothing"
ENDS_AT_ONCE = "import os; os.unlink(os.environ['ALBATROS_TOKEN_FILE'])\n"
DIES = ENDS_AT_ONCE + "raise SystemExit(9)\n"
# Claims, writes one line of log and reports: the least that a runner does.
REPORTS = """
import http.client, json, os, urllib.parse
path = os.environ["ALBATROS_TOKEN_FILE"]
with open(path) as file:
    token = file.read().strip()
os.unlink(path)
nonce = os.urandom(16).hex()
connection = http.client.HTTPConnection(urllib.parse.urlsplit(os.environ["ALBATROS_URL"]).netloc, timeout=600)
def call(method, path, body):
    headers = {"Authorization": "Bearer " + token, "X-Albatros-Nonce": nonce}
    connection.request(method, "/runner/v1/" + path, body, headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status < 300, answer.status
where = {"host": "bench", "pid": 1, "allocation": os.environ["NOMAD_ALLOC_ID"]}
call("POST", "claim", json.dumps({"protocol": 1, "nonce": nonce, **where}))
call("PUT", "log/0?offset=0", b"the first line\\n")
call("POST", "result", json.dumps({
    "nonce": nonce, "outcome": "failed", "reason": "evaluation_failed", "message": "an empty job", "nix_version": None,
    "evaluation": None, "outputs": [], "log_pieces": 1, "log_bytes": 15,
}))
"""


def measure() -> Sequence[Figure]:
    """On dev agents of their own, which remember no other jobs. Raises RuntimeError when a job does not end."""
    with start_dev() as nomad:
        by_hand = _by_hand(nomad, ENDS_AT_ONCE)
    with start_dev() as nomad:
        talking = _by_hand(nomad, REPORTS)
    with start_dev() as nomad:
        with _albatros(nomad, REPORTS) as world:
            singles = [_one(world) for _ in range(SINGLE + 1)][1:]
            through = _many(world)
        with _albatros(nomad, DIES) as world:
            dead = [_one(world) for _ in range(SINGLE)]
        claims = _seconds([(one.created_at, one.claimed_at) for one in singles])
        starts = _seconds([(one.created_at, _told(nomad, one, "StartedAt")) for one in singles])
        noticed = _seconds([(_told(nomad, one, "FinishedAt"), one.ended_at) for one in dead])
    return [
        Figure(f"{JOBS} empty jobs, registered by hand one after the other", by_hand, "/s"),
        Figure(f"{JOBS} jobs that talk as a runner does, registered by hand", talking, "/s", note=ANSWERED),
        Figure(f"{JOBS} empty jobs, from queued to done", through, "/s", note="each claims, logs a line and reports"),
        Figure(f"the same, as a ratio to by hand (aim: {AIM_RATIO} or more)", through / by_hand, ""),
        Figure("the same, as a ratio to those by hand that talk", through / talking, ""),
        Figure("attempt committed to its runner's claim, p50", median(claims), "s", samples=claims),
        Figure("of it until Nomad had started the task, p50", median(starts), "s", samples=starts),
        Figure("end of a mute runner to the end of its attempt, p50", median(noticed), "s", samples=noticed),
    ]


def _seconds(spans: Sequence[tuple[datetime | None, datetime | None]]) -> tuple[float, ...]:
    return tuple((end - start).total_seconds() for start, end in spans if start is not None and end is not None)


def _told(nomad: NomadServer, attempt: Attempt, what: str) -> datetime:
    """A moment that Nomad has of an Attempt's task, in UTC as the database has its own."""
    _, text = nomad.call("GET", f"/v1/job/{job_id(attempt.id)}/allocations")
    at = datetime.fromisoformat(json.loads(text)[0]["TaskStates"][TASK][what])
    return at.replace(tzinfo=None)


def _by_hand(nomad: NomadServer, program: str) -> float:
    """Jobs a second: each registered with its token's Variable, one after the other, until the last has ended."""
    content = zipapp(program)
    settings = _settings(nomad)
    source = RunnerSource(hashlib.sha256(content).hexdigest(), "")
    api = NomadApi(settings)
    with serve_zipapp(content) as url:
        began = time.perf_counter()
        names = set()
        for _ in range(JOBS):
            order = StartOrder(str(uuid.uuid4()), "token", url)
            job = render(settings, source, "by-hand", order)
            api.put_variable(variable_path(order.attempt_id), {TOKEN_ITEM: "token"})
            api.register(job)
            names.add(str(job["ID"]))
        wait_for(lambda: names <= _dead(nomad), "the end of jobs registered by hand", PATIENCE_SECONDS, 0.2)
        rate = JOBS / (time.perf_counter() - began)
    api.close()
    return rate


def _dead(nomad: NomadServer) -> set[str]:
    _, listing = nomad.call("GET", "/v1/jobs?prefix=alb-&per_page=2000")
    return {str(job["ID"]) for job in json.loads(listing) if job["Status"] == "dead"}


def _settings(nomad: NomadServer) -> NomadSettings:
    document = {"addresses": [nomad.url], "without_acl": True, "cpu_mhz": 50, "memory_mb": 64}
    return NomadSettings.model_validate(document)


@contextmanager
def _albatros(nomad: NomadServer, program: str) -> Iterator[World]:
    """A server with its web part and its scheduler, whose runner is this program."""
    content = zipapp(program)
    digest = hashlib.sha256(content).hexdigest()
    with tempfile.TemporaryDirectory() as data:
        url = f"sqlite:///{data}/albatros.sqlite3"
        migrate.prepare(url)
        world = World(connect(url), settings_of(Path(data), limits={"attempts": 1}))
        writer = Writer(world.database, world.signals)
        forges = cast("dict[str, ForgeAdapter]", {"home": world.forge})
        bundle = Bundle(content, f"sha256:{digest}")
        app = AppContext(
            world.settings, world.database, world.store, forges, writer, world.signals, bundle, __version__
        )
        server = WebServer(create_app(app), bind("127.0.0.1:0"))
        server.start()
        woken = partial(world.signals.notify, Topic.SCHEDULER)
        executor = NomadExecutor(_settings(nomad), RunnerSource(digest, ""), uuid.uuid4().hex, woken)
        limits = world.settings.limits
        dispatcher = Dispatcher(world.database, world.signals, executor, limits, KEY, server.local_url)
        scheduler = Scheduler(world.database, world.signals, dispatcher, executor, limits)
        loop = Loop("scheduler", world.signals, Topic.SCHEDULER, scheduler.step, 1.0)
        loop.start()
        try:
            yield world
        finally:
            stop_all([loop], PATIENCE_SECONDS)
            executor.close()
            server.stop()
            writer.close()
            world.database.dispose()


def _many(world: World) -> float:
    """Jobs a second, from before they are queued, all at once, to the end of the last."""
    before, repo = _ended(world), world.repo()
    began = time.perf_counter()
    with world.database.write() as session:
        refs = [f"refs/heads/many-{number}" for number in range(JOBS)]
        create_builds(session, [(repo, NewBuild(ref, secrets.token_hex(20), 1, Trigger.PUSH)) for ref in refs])
    world.signals.notify(Topic.SCHEDULER)
    wait_for(lambda: _ended(world) >= before + JOBS, "the end of queued jobs", PATIENCE_SECONDS, 0.2)
    return JOBS / (time.perf_counter() - began)


def _ended(world: World) -> int:
    with world.database.read() as session:
        ended = select(func.count()).select_from(Attempt).where(Attempt.ended_at.is_not(None))
        return session.scalar(ended) or 0


def _one(world: World) -> Attempt:
    """The Attempt of one Build, when it has ended and everything about it is told."""
    build = world.build(ref=f"refs/heads/{uuid.uuid4()}")
    world.signals.notify(Topic.SCHEDULER)

    def found() -> Attempt | None:
        with world.database.read() as session:
            of_build = select(Attempt).join(Job).where(Job.build_id == build, Attempt.ended_at.is_not(None))
            return session.scalars(of_build).first()

    attempt = wait_for(found, "the end of a job")
    assert attempt is not None
    return attempt
