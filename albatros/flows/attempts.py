"""What a runner may do with its one Attempt: claim it, renew its lease, say that it has a blob, and report its end.

The claim is the fence: a compare-and-set on the Attempt's nonce. Whoever comes later, or too late, is turned away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from albatros.db import blobs, queue
from albatros.db.models import Attempt, Job
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain import repo_config
from albatros.domain.plan import package_of
from albatros.domain.references import Blob
from albatros.domain.states import OPEN_ATTEMPTS, AttemptState, JobKind
from albatros.errors import ConflictError, GoneError, NotFoundError, UnauthorizedError
from albatros.flows import settle
from albatros.flows.dispatch import token_hash
from albatros.forges.base import Forge
from albatros.settings import ForgeSettings, Settings
from albatros.store.base import BlobStore

PROTOCOL = 1


def authenticate(session: Session, token: str) -> Attempt:
    """The Attempt that a token belongs to. Raises UnauthorizedError."""
    attempt = session.scalars(select(Attempt).where(Attempt.token_hash == token_hash(token))).first()
    if attempt is None:
        raise UnauthorizedError("this token belongs to no attempt; a runner gets its token from its executor")
    return attempt


def claim(
    database: Database, settings: Settings, forges: Mapping[str, Forge], token: str, nonce: str, host: str
) -> dict[str, object]:
    """Give the Attempt to the runner that comes first, and say what it has to do; the same runner may ask again.

    Raises ConflictError for another nonce, GoneError when the Attempt is closed.
    """
    with database.write() as session:
        attempt = authenticate(session, token)
        if attempt.state not in OPEN_ATTEMPTS:
            raise GoneError(f"attempt {attempt.id} is closed ({attempt.state}); end without a report")
        if attempt.nonce not in (None, nonce):
            raise ConflictError(f"attempt {attempt.id} is claimed by another runner; end without a report")
        if attempt.state is not AttemptState.CLAIMED:
            queue.move_attempt(session, attempt, AttemptState.CLAIMED)
            attempt.claimed_at = now()
        attempt.nonce, attempt.host = nonce, host[:255]
        attempt.lease_until = now() + timedelta(seconds=settings.limits.lease_seconds)
        job = attempt.job
    return _order(settings, forges, attempt, job)


def claimed(session: Session, token: str, nonce: str) -> Attempt:
    """The open Attempt that this runner holds. Raises UnauthorizedError, ConflictError or GoneError."""
    attempt = authenticate(session, token)
    if attempt.nonce != nonce:
        raise ConflictError(f"attempt {attempt.id} is not claimed by this runner; end without a report")
    if attempt.state is not AttemptState.CLAIMED:
        raise GoneError(f"attempt {attempt.id} is closed ({attempt.state}); end at once")
    return attempt


def heartbeat(database: Database, token: str, nonce: str, lease_seconds: int) -> str | None:
    """Renew the lease; returns why the runner should stop (`cancelled`, `superseded`, `handback`), if it should."""
    with database.write() as session:
        attempt = claimed(session, token, nonce)
        attempt.lease_until = now() + timedelta(seconds=lease_seconds)
        return attempt.stop


def missing_blobs(database: Database, store: BlobStore, token: str, nonce: str, wanted: Iterable[Blob]) -> list[str]:
    """Digests that the runner has to upload: all but those that its own Repo has, and that are really there."""
    wanted = list(wanted)
    with database.write() as session:
        attempt = claimed(session, token, nonce)
        known = blobs.known(session, attempt.job.build.repo_id, [blob.digest for blob in wanted])
        present = {blob.digest for blob in wanted if blob.digest in known and store.size(blob.digest) == blob.size}
        blobs.touch(session, present)
    return [blob.digest for blob in wanted if blob.digest not in present]


def record_upload(session: Session, token: str, nonce: str, blob: Blob) -> None:
    """Remember that this Repo has a blob whose bytes the store just verified."""
    attempt = claimed(session, token, nonce)
    attempt.uploaded_bytes += blob.size
    blobs.record(session, attempt.job.build.repo_id, blob.digest, blob.size)


def upload_allowance(database: Database, token: str, nonce: str, limit: int) -> int:
    """Bytes that the runner may still upload. Raises what `claimed` raises."""
    with database.read() as session:
        return max(0, limit - claimed(session, token, nonce).uploaded_bytes)


def report_result(
    database: Database, store: BlobStore, signals: Signals, settings: Settings, token: str, body: Mapping[str, object]
) -> None:
    """Commit what a runner says of its end; the same report again changes nothing.

    Raises BadInputError, UnauthorizedError, ConflictError or GoneError.
    """
    nonce = str(body.get("nonce") or "")
    with database.read() as session:
        attempt = authenticate(session, token)
        if attempt.nonce == nonce and attempt.state not in OPEN_ATTEMPTS:
            return
        claimed(session, token, nonce)
    closures = {name: store.put([data]) for name, data in settle.closures_of(body).items()}
    with database.write() as session:
        attempt = claimed(session, token, nonce)
        for blob in closures.values():
            blobs.record(session, attempt.job.build.repo_id, blob.digest, blob.size)
        session.flush()
        digests = {name: str(blob.digest) for name, blob in closures.items()}
        settle.record_result(session, attempt, body, settings.limits, digests)
    signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)


def ask_to_stop(session: Session, build_id: int, why: str) -> list[str]:
    """Have every open Attempt of a Build told to stop at its next heartbeat; returns their ids."""
    job_ids = select(Job.id).where(Job.build_id == build_id)
    attempts = session.scalars(
        select(Attempt.id).where(Attempt.job_id.in_(job_ids), Attempt.state.in_(OPEN_ATTEMPTS))
    ).all()
    session.execute(
        update(Attempt).where(Attempt.id.in_(attempts)).values(stop=why).execution_options(synchronize_session=False)
    )
    return list(attempts)


def hand_back(database: Database, executor_name: str) -> None:
    """Have every open Attempt of an executor told to give its Job back to the queue."""
    with database.write() as session:
        mine = update(Attempt).where(
            Attempt.state.in_(OPEN_ATTEMPTS), Attempt.executor == executor_name, Attempt.stop.is_(None)
        )
        session.execute(mine.values(stop=settle.HANDBACK).execution_options(synchronize_session=False))


def running(database: Database, executor_name: str) -> list[str]:
    """Open Attempts of an executor."""
    with database.read() as session:
        mine = select(Attempt.id).where(Attempt.state.in_(OPEN_ATTEMPTS), Attempt.executor == executor_name)
        return list(session.scalars(mine))


def unwanted(database: Database) -> set[str]:
    """Open Attempts that were asked to stop."""
    with database.read() as session:
        statement = select(Attempt.id).where(Attempt.state.in_(OPEN_ATTEMPTS), Attempt.stop.is_not(None))
        return set(session.scalars(statement))


def _order(settings: Settings, forges: Mapping[str, Forge], attempt: Attempt, job: Job) -> dict[str, object]:
    build, executor, limits = job.build, settings.executor, settings.limits
    repo = build.repo
    forge = forges.get(repo.forge)
    if forge is None:
        raise NotFoundError(f"forge {repo.forge!r} is no longer configured; add it again, or cancel the build")
    forge_settings = next(item for item in settings.forges if item.name == repo.forge)
    source = forge.clone_source(repo.owner, repo.name)
    config = repo_config.parse(build.config)
    return {
        "protocol": PROTOCOL,
        "attempt": attempt.id,
        "kind": job.kind.value,
        "lease_seconds": limits.lease_seconds,
        "repo": {
            "clone_url": source.url,
            "commit": build.commit,
            "ref": build.ref,
            "full_name": repo.full_name,
            "username": source.username,
            "password": source.password,
            "submodules": forge_settings.submodules,
            "lfs": forge_settings.lfs,
        },
        "access_tokens": _flake_tokens(forge_settings, trusted=build.trusted),
        "nix": {
            "sandbox": executor.sandbox,
            "sandbox_paths": list(executor.sandbox_paths),
            "substituters": list(executor.substituters),
            "trusted_public_keys": list(executor.trusted_public_keys),
            "import_from_derivation": executor.import_from_derivation and build.trusted,
            "extra_systems": list(executor.extra_systems),
        },
        "limits": {
            "wall_seconds": min(limits.job_seconds, config.limits.job_seconds or limits.job_seconds),
            "silence_seconds": min(limits.silence_seconds, config.limits.silence_seconds or limits.silence_seconds),
            "log_bytes": limits.log_bytes,
            "memory_bytes": limits.evaluation_bytes,
            "attributes": limits.attributes,
            "output_bytes": limits.output_bytes,
        },
        "build": _build_order(job, config) if job.kind is JobKind.BUILD else None,
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
