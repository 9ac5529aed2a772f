"""Repos: list, show, add."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter

from albatros.db import pages, queries
from albatros.db.inbox import upsert_repo
from albatros.domain.refs import check_full_name
from albatros.errors import NotFoundError
from albatros.http.api.shapes import repo_out
from albatros.http.deps import AdminCaller, Context, Reader
from albatros.http.params import Cursor, Limit, check_forge, decode_cursor, encode_cursor
from albatros.http.schemas import AddRepoIn, Page, RepoOut
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(prefix="/api/v1", tags=["repos"])


@router.get("/repos")
def list_repos(context: Context, caller: Reader, cursor: Cursor = "", limit: Limit = 50) -> Page[RepoOut]:
    """Repos that were pushed to or added, the newest first."""
    part = queries.Slice(limit + 1, decode_cursor("repos", cursor), caller.public_only)
    with context.database.read() as session:
        found = queries.list_repos(session, part)
        newest = queries.newest_builds(session, [repo.id for repo in found])
    shown = found[:limit]
    return Page(
        items=[repo_out(context.settings, repo, newest.get(repo.id)) for repo in shown],
        next=encode_cursor("repos", shown[-1].id) if len(found) > limit else None,
    )


@router.post("/repos", status_code=HTTPStatus.CREATED)
def add_repo(context: Context, caller: AdminCaller, body: AddRepoIn) -> RepoOut:
    """Let a repo build that its forge's settings do not cover; the forge is asked about it."""
    forge = context.forges.get(check_forge(body.forge))
    if forge is None:
        raise NotFoundError(f"no forge named {body.forge!r} is configured here")
    owner, name = check_full_name(f"{body.owner}/{body.name}")
    info = forge.describe(owner, name)
    with context.database.write() as session:
        repo = upsert_repo(session, body.forge, info)
        repo.allowed = True
    log.info("repo added", forge=body.forge, repo=repo.full_name, by=caller.name)
    with context.database.read() as session:
        newest = queries.newest_builds(session, [repo.id])
    return repo_out(context.settings, repo, newest.get(repo.id))


@router.get("/repos/{forge}/{owner}/{name}")
def show_repo(context: Context, caller: Reader, forge: str, owner: str, name: str) -> RepoOut:
    """One repo."""
    check_forge(forge)
    owner, name = check_full_name(f"{owner}/{name}")
    with context.database.read() as session:
        repo = pages.find_repo(session, forge, owner, name, public_only=caller.public_only)
        if repo is None:
            raise NotFoundError(f"there is no repo {forge}/{owner}/{name}, or it is not for you to see")
        newest = queries.newest_builds(session, [repo.id])
    return repo_out(context.settings, repo, newest.get(repo.id))
