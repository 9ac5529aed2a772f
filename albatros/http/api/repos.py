"""Repos: list, show, add, remove, and how their webhooks stand."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from fastapi import APIRouter

from albatros.db import queries
from albatros.flows.allowed import check_repo
from albatros.flows.join import read_address
from albatros.forges.base import Hook
from albatros.http import joining
from albatros.http.api.shapes import repo_out
from albatros.http.deps import AppContext, Context, Reader, WriteCaller
from albatros.http.params import Cursor, Limit, RepoQuery, check_forge, decode_cursor, encode_cursor, repo_filter
from albatros.http.schemas import AddRepoIn, HookOut, JoinedOut, Page, RepoOut

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
def add_repo(context: Context, caller: WriteCaller, body: AddRepoIn) -> JoinedOut:
    """Make or repair a repo's webhook, and let it build. One that `forges.repos` does not cover takes an operator."""
    forge, owner, name = _named(context, body)
    joined = joining.add(caller, forge, owner, name)
    with context.database.read() as session:
        newest = queries.newest_builds(session, [joined.repo.id])
    shown = repo_out(context.settings, joined.repo, newest.get(joined.repo.id))
    return JoinedOut(**dict(shown), hook=_hook_out(joined.hook))


@router.get("/repos/{forge}/{owner:path}/{name}/hook")
def show_hook(context: Context, caller: WriteCaller, forge: str, owner: str, name: str) -> HookOut:
    """How a repo's webhook stands, asked of its forge, for those who may change it."""
    return _hook_out(joining.hook_of(caller, *_checked(context, forge, owner, name)))


@router.get("/repos/{forge}/{owner:path}/{name}")
def show_repo(context: Context, caller: Reader, forge: str, owner: str, name: str) -> RepoOut:
    """One repo."""
    repo = caller.repo(*_checked(context, forge, owner, name))
    with context.database.read() as session:
        newest = queries.newest_builds(session, [repo.id])
    return repo_out(context.settings, repo, newest.get(repo.id))


@router.delete("/repos/{forge}/{owner:path}/{name}")
def remove_repo(context: Context, caller: WriteCaller, forge: str, owner: str, name: str) -> HookOut:
    """Take a repo's webhook away and let it build no more; its builds stay."""
    return _hook_out(joining.remove(caller, *_checked(context, forge, owner, name)))


def _checked(context: AppContext, forge: str, owner: str, name: str) -> tuple[str, str, str]:
    return forge, *check_repo(context.settings, check_forge(forge), f"{owner}/{name}")


def _hook_out(hook: Hook) -> HookOut:
    return HookOut(state=hook.state, text=hook.text)


def _named(context: AppContext, body: AddRepoIn) -> tuple[str, str, str]:
    """Forge, owner and name of what is meant. Raises BadInputError."""
    if body.url:
        return read_address(context.settings, body.url)
    return _checked(context, body.forge, body.owner, body.name)
