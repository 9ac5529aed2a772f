"""Builds: list, show, trigger, cancel, rerun, approve."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from albatros.db import pages, queries
from albatros.db.models import Build
from albatros.db.sight import ALL
from albatros.domain.access import Scope
from albatros.domain.states import BuildState
from albatros.errors import NotFoundError
from albatros.flows import receive
from albatros.flows.access import Unseen
from albatros.flows.allowed import check_repo
from albatros.flows.approve import approve
from albatros.flows.cancel import cancel
from albatros.flows.rerun import rerun
from albatros.http.api.shapes import artifact_out, images_out, status_out
from albatros.http.deps import AppContext, Context, Reader, WriteCaller
from albatros.http.params import (
    BuildId,
    Cursor,
    Limit,
    RepoQuery,
    branch_filter,
    check_forge,
    decode_cursor,
    encode_cursor,
    repo_filter,
)
from albatros.http.schemas import BuildDetail, BuildSummary, EdgeOut, JobSummary, Page, TriggerIn
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(prefix="/api/v1", tags=["builds"])
MAX_ARTIFACTS = 500


@router.get("/builds")
def list_builds(
    caller: Reader,
    repo: RepoQuery = "",
    branch: Annotated[str, Query(max_length=1024, description="a branch, or a whole ref")] = "",
    status: Annotated[BuildState | None, Query(description="the state they are in")] = None,
    cursor: Cursor = "",
    limit: Limit = 50,
) -> Page[BuildSummary]:
    """The newest builds."""
    of_repo = repo_filter(repo)
    wanted = pages.BuildFilter(
        forge=of_repo.forge,
        owner=of_repo.owner,
        name=of_repo.name,
        ref=branch_filter(branch),
        state=status,
        before=decode_cursor("builds", cursor),
    )
    found = caller.listed(partial(pages.list_builds, wanted=wanted, limit=limit + 1), lambda row: row.repo)
    shown = [BuildSummary.model_validate(build) for build in found[:limit]]
    return Page(items=shown, next=encode_cursor("builds", shown[-1].id) if len(found) > limit else None)


@router.get("/builds/{id}")
def show_build(context: Context, caller: Reader, build_id: BuildId) -> BuildDetail:
    """One build with everything that belongs to it."""
    build = caller.build(build_id)
    with context.database.read() as session:
        jobs = queries.list_jobs(session, build_id)
        edges = queries.list_edges(session, build_id)
        images = queries.list_images(session, ALL, queries.Slice(pages.MAX_IMAGES), build_id)
        publications = queries.publications_of(session, [image.id for image in images])
        artifacts = queries.list_artifacts(session, ALL, queries.Slice(MAX_ARTIFACTS), build_id=build_id)
        statuses = queries.list_statuses(session, build_id)
    full = (
        (jobs, queries.MAX_JOBS),
        (edges, queries.MAX_EDGES),
        (images, pages.MAX_IMAGES),
        (publications, queries.MAX_PUBLICATIONS),
        (artifacts, MAX_ARTIFACTS),
        (statuses, queries.MAX_STATUSES),
    )
    return BuildDetail(
        **BuildSummary.model_validate(build).__dict__,
        jobs=[JobSummary.model_validate(job) for job in jobs],
        edges=[EdgeOut(job=job, needs=needs) for job, needs in edges],
        images=images_out(images, publications),
        artifacts=[artifact_out(artifact) for artifact in artifacts],
        statuses=[status_out(status) for status in statuses],
        truncated=any(len(rows) >= limit for rows, limit in full),
    )


@router.post("/repos/{forge}/{owner:path}/{name}/builds", status_code=HTTPStatus.CREATED)
def trigger_build(
    context: Context, caller: WriteCaller, forge: str, owner: str, name: str, body: TriggerIn
) -> BuildSummary:
    """Build a branch, a tag or a commit of a repo now, plain or in a flavor."""
    full_name = check_repo(context.settings, check_forge(forge), f"{owner}/{name}")
    # The first push may be yet to come: without a row, the forge alone knows who may see it.
    caller.check(Unseen(forge, *full_name), f"repo {forge}/{owner}/{name}", Scope.WRITE)
    configured = context.forges.get(forge)
    if configured is None:
        raise NotFoundError(f"no forge named {forge!r} is configured here")
    build_id = receive.trigger(context.settings, context.writer, configured, full_name, body.ref, flavor=body.flavor)
    log.info("build triggered", build=build_id, by=caller.name)
    return _summary(context, build_id)


@router.post("/builds/{id}/cancel")
def cancel_build(context: Context, caller: WriteCaller, build_id: BuildId) -> BuildSummary:
    """Stop an open build; its runners are told at their next heartbeat."""
    caller.build(build_id, Scope.WRITE)
    cancel(context.database, context.signals, build_id, by=caller.name)
    return _summary(context, build_id)


@router.post("/builds/{id}/approve")
def approve_build(context: Context, caller: WriteCaller, build_id: BuildId) -> BuildSummary:
    """Let a build run that waits for approval, if its commit is still the head of its pull request."""
    caller.confirm(caller.build(build_id, Scope.WRITE).repo)
    approve(context.database, context.signals, context.forges, build_id, by=caller.name)
    return _summary(context, build_id)


@router.post("/builds/{id}/rerun", status_code=HTTPStatus.CREATED)
def rerun_build(context: Context, caller: WriteCaller, build_id: BuildId) -> BuildSummary:
    """Build the same commit once more, as a new build."""
    caller.build(build_id, Scope.WRITE)
    new_id = rerun(context.settings, context.writer, build_id)
    log.info("build rerun", build=new_id, rerun_of=build_id, by=caller.name)
    return _summary(context, new_id)


def _summary(context: AppContext, build_id: int) -> BuildSummary:
    with context.database.read() as session:
        build: Build | None = pages.find_build(session, build_id)
    if build is None:
        raise NotFoundError(f"there is no build {build_id} any more")
    return BuildSummary.model_validate(build)
