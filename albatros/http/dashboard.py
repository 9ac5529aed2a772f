"""The pages: builds, one build, one job with its log, repos. They are complete without JavaScript.

Only the buttons cancel, rerun and approve change something, for those who may; everything else is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import RedirectResponse

from albatros.db import logs, pages
from albatros.db.models import Attempt
from albatros.db.session import now
from albatros.domain.access import Scope
from albatros.domain.states import BuildState
from albatros.errors import BadInputError, NotFoundError
from albatros.flows.allowed import check_repo
from albatros.flows.approve import approve
from albatros.flows.cancel import cancel
from albatros.flows.rerun import rerun
from albatros.http import logtext
from albatros.http.build_views import BuildRows, build_page, failed_jobs
from albatros.http.caller import Caller
from albatros.http.deps import AppContext, Context
from albatros.http.job_views import NO_LOG, LogView, job_page, log_view
from albatros.http.login import FormCaller, PageCaller, PageViewer
from albatros.http.params import MAX_ID, branch_filter, check_forge, repo_filter
from albatros.http.render import page
from albatros.http.views import BuildLine, build_lines, head_lines, repo_line, repo_path

router = APIRouter(include_in_schema=False)
BUILDS_A_PAGE = 30
REPOS_A_PAGE = 50
JOBS_A_PAGE = 50
BUILDS_OF_REPO = 10
NEEDS_SHOWN = 20
TAILS_SHOWN = 3
TAIL_LINES = 15
TAIL_BYTES = 4096

Id = Annotated[int, Path(ge=1, le=MAX_ID)]
Short = Annotated[str, Query(max_length=600)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


@router.get("/")
def builds(
    caller: PageCaller,
    viewer: PageViewer,
    repo: Short = "",
    branch: Short = "",
    state: Short = "",
    before: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> Response:
    """The newest builds."""
    query = {"repo": repo.strip(), "branch": branch.strip(), "state": state if state in list(BuildState) else ""}
    kept = {key: value for key, value in query.items() if value}
    lines: list[BuildLine] = []
    problem = ""
    try:
        wanted = _filter(query, before)
    except BadInputError as error:
        problem = error.detail
    else:
        lines = _list_builds(caller, wanted, BUILDS_A_PAGE + 1)
    older = lines[BUILDS_A_PAGE - 1].id if len(lines) > BUILDS_A_PAGE else None
    return page(
        "builds.html",
        viewer=viewer,
        here="builds",
        builds=lines[:BUILDS_A_PAGE],
        query=query,
        problem=problem,
        states=list(BuildState),
        filtered=bool(kept),
        newest=_link("/", kept) if before else "",
        older=_link("/", {**kept, "before": older}) if older else "",
    )


@router.get("/builds/{build_id}")
def build(context: Context, caller: PageCaller, viewer: PageViewer, build_id: Id, jobs: Offset = 0) -> Response:
    """One build; `jobs` is how many of its jobs the pages before this one showed."""
    at = now()
    found = caller.build(build_id)
    with context.database.read() as session:
        shown = pages.list_jobs(session, build_id, JOBS_A_PAGE + 1, jobs)
        evaluation = pages.find_evaluation(session, build_id)
        counts = pages.count_jobs(session, [build_id]).get(build_id, pages.JobCounts())
        images = pages.list_images(session, build_id)
        publications = pages.list_publications(session, build_id)
        artifacts = pages.list_artifacts(session, build_id=build_id)
        status = pages.find_status(session, build_id)
        failed = failed_jobs([*([evaluation] if evaluation else []), *shown], TAILS_SHOWN)
        attempts = pages.newest_attempts(session, failed)
    rows = BuildRows(
        build=found,
        counts=counts,
        evaluation=evaluation if jobs == 0 else None,
        jobs=shown[:JOBS_A_PAGE],
        images=images,
        publications=publications,
        artifacts=artifacts,
        status=status,
        tails=_tails(context, attempts),
    )
    more = len(shown) > JOBS_A_PAGE
    return page(
        "build.html",
        viewer=viewer,
        here="builds",
        page=build_page(rows, context.settings, at),
        may_write=bool(viewer.form_token) and caller.offers(found.repo, Scope.WRITE),
        fewer=_link(f"/builds/{build_id}", {"jobs": max(0, jobs - JOBS_A_PAGE)}) if jobs else "",
        more=_link(f"/builds/{build_id}", {"jobs": jobs + JOBS_A_PAGE}) if more else "",
    )


@router.post("/builds/{build_id}/cancel")
def cancel_build(context: Context, caller: FormCaller, build_id: Id) -> Response:
    """The button that stops a build."""
    caller.build(build_id, Scope.WRITE)
    cancel(context.database, context.signals, build_id, by=caller.name)
    return RedirectResponse(f"/builds/{build_id}", HTTPStatus.SEE_OTHER)


@router.post("/builds/{build_id}/approve")
def approve_build(context: Context, caller: FormCaller, build_id: Id) -> Response:
    """The button that lets a stranger's build run."""
    caller.confirm(caller.build(build_id, Scope.WRITE).repo)
    approve(context.database, context.signals, context.forges, build_id, by=caller.name)
    return RedirectResponse(f"/builds/{build_id}", HTTPStatus.SEE_OTHER)


@router.post("/builds/{build_id}/rerun")
def rerun_build(context: Context, caller: FormCaller, build_id: Id) -> Response:
    """The button that builds the same commit again."""
    caller.build(build_id, Scope.WRITE)
    return RedirectResponse(f"/builds/{rerun(context.settings, context.writer, build_id)}", HTTPStatus.SEE_OTHER)


@router.get("/jobs/{job_id}")
def job(
    context: Context,
    caller: PageCaller,
    viewer: PageViewer,
    job_id: Id,
    attempt: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    first: Annotated[int | None, Query(alias="from", ge=1, le=1 << 31)] = None,
) -> Response:
    """One job, with the log of an attempt: its end, or the lines from number `from` on."""
    found = caller.job(job_id)
    with context.database.read() as session:
        attempts = pages.list_attempts(session, job_id)
        needs = pages.list_needs(session, job_id, NEEDS_SHOWN)
        artifacts = pages.list_artifacts(session, job_id=job_id)
    shown = attempts[:1] if attempt is None else [one for one in attempts if one.number == attempt]
    if attempt is not None and not shown:
        raise NotFoundError(f"job {job_id} has no attempt {attempt}")
    return page(
        "job.html",
        viewer=viewer,
        here="builds",
        page=job_page(found, attempts, needs, artifacts, now()),
        log=_log(context, shown[0], first) if shown else NO_LOG,
    )


@router.get("/repos")
def repos(caller: PageCaller, viewer: PageViewer, skip: Offset = 0) -> Response:
    """All repos with their newest build."""
    rows = caller.listed(partial(pages.list_repos, limit=REPOS_A_PAGE + 1, offset=skip), lambda row: row.repo)
    at = now()
    return page(
        "repos.html",
        viewer=viewer,
        here="repos",
        repos=[repo_line(row, {}, at) for row in rows[:REPOS_A_PAGE]],
        fewer=_link("/repos", {"skip": max(0, skip - REPOS_A_PAGE)}) if skip else "",
        more=_link("/repos", {"skip": skip + REPOS_A_PAGE}) if len(rows) > REPOS_A_PAGE else "",
    )


@router.get("/repos/{forge}/{owner:path}/{name}")
def repo(context: Context, caller: PageCaller, viewer: PageViewer, forge: str, owner: str, name: str) -> Response:
    """One repo: its newest builds, its refs and its badge."""
    owner, name = check_repo(context.settings, check_forge(forge), f"{owner}/{name}")
    found = caller.repo(forge, owner, name)
    lines = _list_builds(caller, pages.BuildFilter(forge=forge, owner=owner, name=name), BUILDS_OF_REPO)
    with context.database.read() as session:
        heads = pages.list_heads(session, found.id)
    path = repo_path(found)
    full = f"{forge}/{owner}/{name}"
    return page(
        "repo.html",
        viewer=viewer,
        here="repos",
        repo=repo_line(pages.RepoRow(found, None), {}, now()),
        full=full,
        may_change=bool(viewer.form_token) and caller.offers(found, Scope.ADMIN),
        base=context.settings.server.url.rstrip("/"),
        badge=f"/badges{path.removeprefix('/repos')}.svg",
        builds=lines,
        heads=head_lines(heads, now()),
        all_builds=_link("/", {"repo": full}),
    )


def _filter(query: Mapping[str, str], before: int | None) -> pages.BuildFilter:
    repo = repo_filter(query["repo"])
    return pages.BuildFilter(
        forge=repo.forge,
        owner=repo.owner,
        name=repo.name,
        ref=branch_filter(query["branch"]),
        state=BuildState(query["state"]) if query["state"] else None,
        before=before,
    )


def _list_builds(caller: Caller, wanted: pages.BuildFilter, limit: int) -> list[BuildLine]:
    found = caller.listed(partial(pages.list_builds, wanted=wanted, limit=limit), lambda row: row.repo)
    with caller.context.database.read() as session:
        counts = pages.count_jobs(session, [one.id for one in found])
    return build_lines(found, counts, now())


def _link(path: str, query: Mapping[str, object]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _tails(context: AppContext, attempts: Mapping[int, Attempt]) -> dict[int, tuple[str, ...]]:
    """The last lines of each log; one that was taken away has none."""
    found = {}
    for job_id, attempt in attempts.items():
        if attempt.log_bytes:
            try:
                data = logs.tail(context.database, context.store, attempt.id, TAIL_LINES, TAIL_BYTES)
            except NotFoundError:
                continue
            lines = data.removesuffix(b"\n").split(b"\n")
            found[job_id] = tuple(logtext.plain_text(line) for line in lines)
    return found


def _log(context: AppContext, attempt: Attempt, first: int | None) -> LogView:
    chunks = logs.stream(context.database, context.store, attempt.id)
    try:
        shown = logtext.tail(chunks) if first is None else logtext.window(chunks, first)
    except NotFoundError as error:
        return LogView(logtext.NOTHING, gone=error.detail)
    return log_view(attempt, shown)
