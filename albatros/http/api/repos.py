"""Repos: list, show, add."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from fastapi import APIRouter

from albatros.db import queries
from albatros.db.inbox import upsert_repo
from albatros.domain.refs import check_full_name
from albatros.errors import BadInputError, NotFoundError
from albatros.http.api.shapes import repo_out
from albatros.http.deps import AdminCaller, AppContext, Context, Reader
from albatros.http.params import Cursor, Limit, RepoQuery, check_forge, decode_cursor, encode_cursor, repo_filter
from albatros.http.schemas import AddRepoIn, Page, RepoOut
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(prefix="/api/v1", tags=["repos"])


@router.get("/repos")
def list_repos(
    context: Context, caller: Reader, repo: RepoQuery = "", cursor: Cursor = "", limit: Limit = 50
) -> Page[RepoOut]:
    """Repos that were pushed to or added, the newest first."""
    part = queries.Slice(limit + 1, decode_cursor("repos", cursor))
    found = caller.listed(partial(queries.list_repos, part=part, wanted=repo_filter(repo)), lambda row: row)
    with context.database.read() as session:
        newest = queries.newest_builds(session, [repo.id for repo in found])
    shown = found[:limit]
    return Page(
        items=[repo_out(context.settings, repo, newest.get(repo.id)) for repo in shown],
        next=encode_cursor("repos", shown[-1].id) if len(found) > limit else None,
    )


@router.post("/repos", status_code=HTTPStatus.CREATED)
def add_repo(context: Context, caller: AdminCaller, body: AddRepoIn) -> RepoOut:
    """Let a repo build that its forge's settings do not cover; the forge is asked about it."""
    forge_name, full_name = _named(context, body)
    forge = context.forges.get(forge_name)
    if forge is None:
        raise NotFoundError(f"no forge named {forge_name!r} is configured here")
    info = forge.describe(*check_full_name(full_name))
    with context.database.write() as session:
        repo = upsert_repo(session, forge_name, info)
        repo.allowed = True
    log.info("repo added", forge=forge_name, repo=repo.full_name, by=caller.name)
    with context.database.read() as session:
        newest = queries.newest_builds(session, [repo.id])
    return repo_out(context.settings, repo, newest.get(repo.id))


@router.get("/repos/{forge}/{owner}/{name}")
def show_repo(context: Context, caller: Reader, forge: str, owner: str, name: str) -> RepoOut:
    """One repo."""
    check_forge(forge)
    owner, name = check_full_name(f"{owner}/{name}")
    repo = caller.repo(forge, owner, name)
    with context.database.read() as session:
        newest = queries.newest_builds(session, [repo.id])
    return repo_out(context.settings, repo, newest.get(repo.id))


def _named(context: AppContext, body: AddRepoIn) -> tuple[str, str]:
    """The forge and `OWNER/NAME` that are meant. Raises BadInputError."""
    if not body.url:
        return check_forge(body.forge), f"{body.owner}/{body.name}"
    for forge in context.settings.forges:
        base = forge.url.rstrip("/") + "/"
        if body.url.startswith(base):
            return forge.name, body.url.removeprefix(base).rstrip("/").removesuffix(".git")
    raise BadInputError("this address is on no forge that is configured here; give forge, owner and name")
