"""Commit statuses: what a Build shows on its forge is a row written with the change that made it due, then delivered.

One aggregate for each flavor, one for each failed Job and one for each Image at each Registry, capped. The last state
always wins: a row that changed while it was being posted stays due. Posting a state twice is harmless, so a crash
between the post and its row costs one more post.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db.events import emit
from albatros.db.models import Build, Job, Publication, StatusReport
from albatros.db.outbox import (
    StatusWish,
    aggregate_of,
    claim_status,
    finish_status,
    is_part,
    part_of,
    put_status,
    statuses_of,
)
from albatros.db.session import Database, now
from albatros.domain.refs import is_commit
from albatros.domain.states import BuildState, JobState, PublicationState, is_end
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges.base import CommitStatus, Forge
from albatros.log import get_logger

MAX_EXTRA_CONTEXTS = 20
LEASE = timedelta(seconds=60)
"""Longer than any forge lets one post take, so that a slow post is over before another server may post."""
UNAVAILABLE_FIRST, UNAVAILABLE_LONGEST, UNAVAILABLE_TRIES = 2.0, 300.0, 300
REFUSED_FIRST, REFUSED_LONGEST, REFUSED_TRIES = 30.0, 900.0, 10

_log = get_logger(__name__)


def request_status(session: Session, build: Build) -> None:
    """Make a Build's aggregate status due as the Build stands now, in the caller's transaction.

    At its end, contexts that an earlier Build of the same commit left behind follow it, so that none goes stale.
    """
    wish = StatusWish(
        aggregate_of(build.flavor, build.merge_into), build.state, _describe(build), _page_of(session, build)
    )
    put_status(session, build.repo_id, build.commit, build.id, wish)
    if is_end(build.state):
        _settle_left_over(session, build)


def request_job_status(session: Session, job: Job) -> None:
    """Make the status of a failed Job due, under the name of its first attribute."""
    name = job.attributes[0] if job.attributes else job.name
    state = BuildState.FAILED if job.state is JobState.FAILED else BuildState.SUCCEEDED
    description = f"{name}: {job.message or job.state}"
    context = part_of(job.build.flavor, job.build.merge_into, name)
    _put_extra(session, job.build, StatusWish(context, state, description, f"/jobs/{job.id}"))


def request_publication_status(session: Session, publication: Publication) -> None:
    """Make the status of an Image at a Registry due: the worst of its tags there."""
    session.flush()
    image, build = publication.image, publication.image.build
    of_image = select(Publication).where(
        Publication.image_id == image.id, Publication.registry_name == publication.registry_name
    )
    tags = session.scalars(of_image.order_by(Publication.id)).all()
    failed = next((tag for tag in tags if tag.state is PublicationState.FAILED), None)
    if failed is not None:
        state, description = BuildState.FAILED, f"{failed.name}:{failed.tag} failed: {failed.message}"
    elif all(is_end(tag.state) for tag in tags):
        names = ", ".join(tag.tag for tag in tags if tag.state is PublicationState.PUBLISHED)
        state, description = BuildState.SUCCEEDED, f"published as {names}" if names else "pushed by digest only"
    else:
        state, description = BuildState.PUBLISHING, "publishing"
    context = part_of(build.flavor, build.merge_into, f"{image.name}@{publication.registry_name}")
    _put_extra(session, build, StatusWish(context, state, description, f"/builds/{build.id}"))


def _page_of(session: Session, build: Build) -> str:
    """The page that says why: the log of the one Job that failed, else the Build's."""
    if build.state in {BuildState.FAILED, BuildState.ERRORED}:
        failed = select(Job.id).where(Job.build_id == build.id, Job.state == JobState.FAILED).limit(2)
        jobs = session.scalars(failed).all()
        if len(jobs) == 1:
            return f"/jobs/{jobs[0]}"
    return f"/builds/{build.id}"


def _describe(build: Build) -> str:
    text = f"build {build.number}: {build.state}"
    return f"{text}: {build.message}" if build.message else text


def _put_extra(session: Session, build: Build, wish: StatusWish) -> None:
    shown = {report.context for report in _parts_shown(session, build)}
    if wish.context in shown or len(shown) < MAX_EXTRA_CONTEXTS:
        put_status(session, build.repo_id, build.commit, build.id, wish)


def _parts_shown(session: Session, build: Build) -> list[StatusReport]:
    """Statuses of the commit for parts of its Builds of this flavor, or of its merge results."""
    shown = statuses_of(session, build.repo_id, build.commit)
    return [report for report in shown if is_part(report.context, build.flavor, build.merge_into)]


def _settle_left_over(session: Session, build: Build) -> None:
    left_over = [report.context for report in _parts_shown(session, build) if report.build_id < build.id]
    if not left_over:
        return
    jobs = session.execute(select(Job.attributes, Job.state).where(Job.build_id == build.id)).all()
    well = [name for names, state in jobs if state is JobState.SUCCEEDED for name in names]
    done = {part_of(build.flavor, build.merge_into, name) for name in well}
    for context in left_over:
        state = BuildState.SUCCEEDED if context in done else build.state
        wish = StatusWish(context, state, f"build {build.number}: {state}", f"/builds/{build.id}")
        put_status(session, build.repo_id, build.commit, build.id, wish)


def deliver_one(database: Database, forges: Mapping[str, Forge], server_url: str, holder: str) -> bool:
    """Post the commit status that is due longest; False when none is due.

    `holder` names this server among those that share the database; `server_url` begins every link.
    """
    with database.write() as session:
        report = claim_status(session, holder, LEASE)
        if report is None:
            return False
        owner, name, forge_name = report.repo.owner, report.repo.name, report.repo.forge
        ref = _ref_of(session, report)
    status = CommitStatus(
        commit=report.commit,
        context=report.context,
        state=report.state,
        description=report.description,
        target_url=server_url.rstrip("/") + report.target_path,
        ref="" if is_commit(ref) else ref,
    )
    forge = forges.get(forge_name)
    error: ForgeError | None = None
    if forge is None:
        error = ForgeError(f"no forge named {forge_name!r} is configured; add it to [[forges]] again")
    else:
        try:
            forge.post_status(owner, name, status)
        except ForgeError as failure:
            error = failure
    _record(database, report, error)
    return True


def _ref_of(session: Session, report: StatusReport) -> str:
    """What the commit was built as: a merge result is shown beside its head."""
    build = session.get(Build, report.build_id)
    if build is None or build.merge_into is None:
        return build.ref if build is not None else ""
    alone = (Build.repo_id == build.repo_id, Build.commit == build.commit, Build.merge_into.is_(None))
    return session.scalar(select(Build.ref).where(*alone).order_by(Build.id.desc()).limit(1)) or ""


def _record(database: Database, report: StatusReport, error: ForgeError | None) -> None:
    """Write down how a post went: sent, due again later, or given up."""
    if error is None:
        with database.write() as session:
            finish_status(session, report, sent=True, error="", next_try_at=now())
        return
    delay = _delay(error, report.tries)
    with database.write() as session:
        again = now() + timedelta(seconds=delay or 0)
        current = finish_status(session, report, sent=delay is None, error=error.detail, next_try_at=again)
        build = session.get(Build, report.build_id) if current and delay is None else None
        if build is not None:
            emit(session, build, "status.given_up", context=report.context, error=error.detail)
    where = {"repo": report.repo.full_name, "commit": report.commit, "context": report.context, "error": error.detail}
    if delay is not None:
        _log.warning("a commit status could not be posted; it is tried again", seconds=round(delay), **where)
    elif current:
        _log.error("a commit status is given up; rerun the build to post it again", tries=report.tries, **where)


def _delay(error: ForgeError, tries: int) -> float | None:
    """Seconds until the next try, doubling with jitter, after what the forge asks for; None when no try is left."""
    first, longest, most = REFUSED_FIRST, REFUSED_LONGEST, REFUSED_TRIES
    asked = 0.0
    if isinstance(error, ForgeUnavailableError):
        first, longest, most = UNAVAILABLE_FIRST, UNAVAILABLE_LONGEST, UNAVAILABLE_TRIES
        asked = error.after or 0.0
    if tries >= most:
        return None
    return asked + min(longest, first * 2.0 ** min(tries - 1, 20)) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter, no secret
