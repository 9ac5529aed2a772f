"""What a runner may do with its one Attempt: claim it, renew its lease, say that it has a blob, and report its end.

The claim is the fence: a compare-and-set on the Attempt's nonce. Whoever comes later, or too late, is turned away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from albatros.db import blobs, events, queue
from albatros.db.keyring import Keyring
from albatros.db.models import Attempt, Build, Job
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain import repo_config
from albatros.domain.outputs import Output
from albatros.domain.plan import package_of
from albatros.domain.references import Blob, digest_of
from albatros.domain.refs import BRANCH_PREFIX, head_of
from albatros.domain.result import HANDBACK, read_result
from albatros.domain.states import OPEN_ATTEMPTS, AttemptState, JobKind, Reason
from albatros.domain.text import plain
from albatros.errors import (
    ConflictError,
    ForgeError,
    ForgeUnavailableError,
    GoneError,
    NotFoundError,
    SecretsUnreadableError,
    UnauthorizedError,
)
from albatros.executors.base import RunnerPlaced
from albatros.flows import scripts, settle
from albatros.flows.bounds import Bounds, bounds_of
from albatros.flows.dispatch import token_hash
from albatros.flows.secrets import access_tokens, script_secrets
from albatros.forges.base import Forge
from albatros.settings import ForgeSettings, LimitSettings, Settings
from albatros.store.base import BlobStore

PROTOCOL = 1


def authenticate(session: Session, token: str, *, lock: bool = False) -> Attempt:
    """The Attempt that a token belongs to, held for this transaction if asked. Raises UnauthorizedError."""
    statement = select(Attempt).where(Attempt.token_hash == token_hash(token))
    attempt = session.scalars(statement.with_for_update(of=Attempt) if lock else statement).first()
    if attempt is None:
        raise UnauthorizedError("this token belongs to no attempt; a runner gets its token from its executor")
    return attempt


def claim(
    database: Database,
    signals: Signals,
    settings: Settings,
    forges: Mapping[str, Forge],
    token: str,
    nonce: str,
    host: object,
    allocation: object = None,
) -> dict[str, object]:
    """Give the Attempt to the runner that comes first, and say what it has to do; the same runner may ask again.

    `host` and `allocation` are where it says it runs, for people.
    Raises ConflictError for another nonce, GoneError when the Attempt is closed, ForgeUnavailableError.
    """
    with database.write() as session:
        attempt = authenticate(session, token, lock=True)
        if attempt.state not in OPEN_ATTEMPTS:
            raise GoneError(f"attempt {attempt.id} is closed ({attempt.state}); end without a report")
        if attempt.nonce not in (None, nonce):
            raise ConflictError(f"attempt {attempt.id} is claimed by another runner; end without a report")
        if attempt.state is not AttemptState.CLAIMED:
            queue.move_attempt(session, attempt, AttemptState.CLAIMED)
            attempt.claimed_at = now()
        attempt.nonce, attempt.host, attempt.allocation = nonce, plain(host, 255), plain(allocation, 64)
        attempt.lease_until = now() + timedelta(seconds=settings.limits.lease_seconds)
        job = attempt.job
    try:
        keyring = Keyring(settings.secrets_key)
        tokens = access_tokens(database, keyring, job.build)
        own = script_secrets(database, keyring, job.build) if job.kind is JobKind.SCRIPT else {}
        return _order(settings, forges, attempt, job, tokens, own)
    except ForgeUnavailableError:
        raise
    except (ForgeError, NotFoundError, SecretsUnreadableError) as error:
        settle.close_attempt(
            database, signals, settings.limits, attempt.id, AttemptState.FAILED, Reason.DRIVER, error.detail
        )
        raise GoneError(f"attempt {attempt.id} is closed: {error.detail}") from error


def claimed(session: Session, token: str, nonce: str, *, lock: bool = False) -> Attempt:
    """The open Attempt that this runner holds. Raises UnauthorizedError, ConflictError or GoneError."""
    return _held(authenticate(session, token, lock=lock), nonce)


def _held(attempt: Attempt, nonce: str) -> Attempt:
    if attempt.nonce != nonce:
        raise ConflictError(f"attempt {attempt.id} is not claimed by this runner; end without a report")
    if attempt.state is not AttemptState.CLAIMED:
        raise GoneError(f"attempt {attempt.id} is closed ({attempt.state}); end at once")
    return attempt


def heartbeat(database: Database, token: str, nonce: str, lease_seconds: int) -> str | None:
    """Renew the lease; returns why the runner should stop (`cancelled`, `superseded`, `handback`), if it should."""
    with database.write() as session:
        attempt = claimed(session, token, nonce, lock=True)
        attempt.lease_until = now() + timedelta(seconds=lease_seconds)
        return attempt.stop


def missing_blobs(database: Database, store: BlobStore, token: str, nonce: str, wanted: Iterable[Blob]) -> list[str]:
    """Digests that the runner has to upload: all but those that its own Repo has, and that are really there."""
    wanted = list(wanted)
    with database.write() as session:
        attempt = claimed(session, token, nonce)
        known = blobs.known(session, attempt.job.build.repo_id, [blob.digest for blob in wanted])
    # Touched above, so what is there now stays; looking at up to a thousand files takes no lock.
    present = {blob.digest for blob in wanted if blob.digest in known and store.size(blob.digest) == blob.size}
    return [blob.digest for blob in wanted if blob.digest not in present]


def record_upload(session: Session, token: str, nonce: str, blob: Blob) -> None:
    """Remember that this Repo has a blob whose bytes the store just verified."""
    attempt = claimed(session, token, nonce, lock=True)
    attempt.uploaded_bytes += blob.size
    blobs.record(session, attempt.job.build.repo_id, blob.digest, blob.size)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many bytes an Attempt may still upload."""

    attempt_id: str
    bytes_left: int


def upload_allowance(database: Database, token: str, nonce: str, limit: int) -> Allowance:
    """What the runner may still upload. Raises what `claimed` raises."""
    with database.read() as session:
        attempt = claimed(session, token, nonce)
        return Allowance(attempt.id, max(0, limit - attempt.uploaded_bytes))


def check_token(database: Database, token: str) -> None:
    """Raise UnauthorizedError for a token that belongs to no Attempt."""
    with database.read() as session:
        authenticate(session, token)


def report_result(
    database: Database, store: BlobStore, signals: Signals, settings: Settings, token: str, body: Mapping[str, object]
) -> None:
    """Commit what a runner says of its end; the same report again changes nothing.

    Raises BadInputError, UnauthorizedError, ConflictError or GoneError.
    """
    nonce, report = str(body.get("nonce")), _digest_of_report(body)
    with database.read() as session:
        attempt = authenticate(session, token)
        if _is_repeated(attempt, nonce, report):
            return
        attempt_id, keeps_outputs = _held(attempt, nonce).id, attempt.job.kind is JobKind.BUILD
    result = read_result(body)
    closures = _store_closures(store, result.outputs) if keeps_outputs else {}
    with database.write() as session:
        found = queue.lock_attempt(session, attempt_id)
        if found is None:
            raise GoneError(f"attempt {attempt_id} was taken away; end at once")
        if _is_repeated(found, nonce, report):
            return
        attempt = _held(found, nonce)
        attempt.result = {"report": report, "evaluation": result.evaluation}
        for blob in sorted(closures.values(), key=lambda blob: blob.digest):
            blobs.record(session, attempt.job.build.repo_id, blob.digest, blob.size)
        digests = {name: str(blob.digest) for name, blob in closures.items()}
        settle.record_result(session, attempt, result, settings.limits, digests)
    signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)


def _digest_of_report(body: Mapping[str, object]) -> str:
    return digest_of(json.dumps(body, sort_keys=True).encode())


def _is_repeated(attempt: Attempt, nonce: str, report: str) -> bool:
    """Whether this very report closed the Attempt: its answer was lost on the way."""
    return attempt.nonce == nonce and (attempt.result or {}).get("report") == report


def _store_closures(store: BlobStore, outputs: Iterable[Output]) -> dict[str, Blob]:
    """The closure of each output as a blob of canonical JSON."""
    return {output.name: store.put([json.dumps(output.closure, sort_keys=True).encode()]) for output in outputs}


def ask_to_stop(session: Session, build_id: int, why: str) -> list[str]:
    """Have every open Attempt of a Build told to stop at its next heartbeat; returns their ids."""
    job_ids = select(Job.id).where(Job.build_id == build_id)
    attempts = session.scalars(
        select(Attempt.id).where(Attempt.job_id.in_(job_ids), Attempt.state.in_(OPEN_ATTEMPTS))
    ).all()
    queue.changed(session, update(Attempt).where(Attempt.id.in_(attempts)).values(stop=why))
    return list(attempts)


def hand_back(database: Database, executor_name: str) -> int:
    """Have every open Attempt of an executor told to give its Job back to the queue; how many were not told yet."""
    with database.write() as session:
        mine = update(Attempt).where(queue.IS_OPEN, Attempt.executor == executor_name, Attempt.stop.is_(None))
        return queue.changed(session, mine.values(stop=HANDBACK))


def running(database: Database, executor_name: str) -> dict[str, AttemptState]:
    """Open Attempts of an executor, and how far each is."""
    statement = select(Attempt.id, Attempt.state)
    with database.read() as session:
        mine = statement.where(queue.IS_OPEN, Attempt.executor == executor_name)
        return {row.id: row.state for row in session.execute(mine)}


def note_placements(database: Database, signals: Signals, placed: Mapping[str, RunnerPlaced]) -> None:
    """Keep what an executor says of where Attempts are; those that wait for a place get more time to be claimed."""
    statement = select(Attempt).where(Attempt.id.in_(placed), Attempt.state.in_(OPEN_ATTEMPTS)).order_by(Attempt.id)
    with database.write() as session:
        for attempt in session.scalars(statement).all():
            found = placed[attempt.id]
            same = update(Attempt).where(Attempt.id == attempt.id, Attempt.state.in_(OPEN_ATTEMPTS))
            if found.waits:
                waiting = same.where(Attempt.state == AttemptState.SUBMITTED)
                queue.changed(session, waiting.values(lease_until=settle.claim_deadline()))
            # Of what waits the same is told again and again, and nobody who watches wants to hear it.
            if attempt.placement != found.facts and queue.changed(session, same.values(placement=dict(found.facts))):
                events.emit(session, attempt.job.build, "attempt.placed", attempt=attempt.id, job=attempt.job_id)
    signals.notify(Topic.WATCHERS)


def unwanted(database: Database, executor_name: str) -> set[str]:
    """Open Attempts of an executor that were asked to stop."""
    with database.read() as session:
        mine = select(Attempt.id).where(queue.IS_OPEN, Attempt.executor == executor_name)
        return set(session.scalars(mine.where(Attempt.stop.is_not(None))))


def _order(
    settings: Settings,
    forges: Mapping[str, Forge],
    attempt: Attempt,
    job: Job,
    tokens: Mapping[str, str],
    secrets: Mapping[str, str],
) -> dict[str, object]:
    build, executor, limits = job.build, settings.executor, settings.limits
    repo = build.repo
    forge = forges.get(repo.forge)
    if forge is None:
        raise NotFoundError(f"forge {repo.forge!r} is no longer configured; add it again, or cancel the build")
    forge_settings = next(item for item in settings.forges if item.name == repo.forge)
    if job.kind is JobKind.SCRIPT and (refusal := scripts.why_not(build, {repo.forge: forge_settings})):
        raise NotFoundError(refusal)
    # A stranger's build of a public repo needs no credential, so its runner gets none.
    source = forge.clone_source(repo.owner, repo.name, credential=repo.private or build.trusted)
    config = repo_config.parse(build.config)
    return {
        "protocol": PROTOCOL,
        "attempt": attempt.id,
        "kind": job.kind.value,
        "lease_seconds": limits.lease_seconds,
        "repo": {
            "clone_url": source.url,
            "commit": build.commit,
            "ref": build.ref if build.merge_into is None else head_of(build.ref),
            "full_name": repo.full_name,
            # A stranger must not choose the settings that hold for him; without a base, none do.
            "config_commit": _config_commit(build),
            "username": source.username,
            "password": source.password,
            # Somebody approved this repo's commit, and not that a stranger's flake or submodule names others.
            "repo_alone": not build.trusted,
            "submodules": forge_settings.submodules,
            "lfs": forge_settings.lfs,
            "merge": _merge_order(build),
        },
        "access_tokens": {**_flake_tokens(forge_settings, trusted=build.trusted), **tokens},
        "nix": {
            "sandbox": executor.sandbox,
            "sandbox_paths": list(executor.sandbox_paths),
            "substituters": list(executor.substituters),
            "trusted_public_keys": list(executor.trusted_public_keys),
            "import_from_derivation": executor.import_from_derivation and build.trusted,
            "extra_systems": list(executor.extra_systems),
            "min_free": executor.min_free,
            "max_free": executor.max_free,
        },
        "limits": _limits_order(limits, bounds_of(limits, build.config)),
        "build": _build_order(job, config) if job.kind is JobKind.BUILD else None,
        "script": scripts.order(build, source, secrets) if job.kind is JobKind.SCRIPT else None,
    }


def _config_commit(build: Build) -> str | None:
    """Whose settings hold; None: those of what is built, which the server cannot name where that is a merge result."""
    if build.trusted:
        return build.commit if build.merge_into is None else None
    return build.base_commit or ""


def _merge_order(build: Build) -> dict[str, str] | None:
    if build.merge_into is None or build.base_commit is None:
        return None
    return {"commit": build.base_commit, "branch": build.merge_into.removeprefix(BRANCH_PREFIX)}


def _limits_order(limits: LimitSettings, bounds: Bounds) -> dict[str, object]:
    return {
        "wall_seconds": bounds.wall_seconds,
        "silence_seconds": bounds.silence_seconds,
        "log_bytes": limits.log_bytes,
        "memory_bytes": limits.evaluation_bytes,
        "attributes": limits.attributes,
        "output_bytes": limits.output_bytes,
    }


def _flake_tokens(forge: ForgeSettings, *, trusted: bool) -> dict[str, str]:
    return {host: token.get_secret_value() for host, token in forge.flake_tokens.items()} if trusted else {}


def _build_order(job: Job, config: repo_config.RepoConfig) -> dict[str, object]:
    names = [package[1] for attribute in job.attributes if (package := package_of(attribute))]
    return {
        "attribute": job.attributes[0],
        "drv_path": job.drv_path,
        "binaries": sorted({binary for name in names for binary in config.binaries(name)}),
        "keep": any(config.keeps(name) for name in names),
    }
