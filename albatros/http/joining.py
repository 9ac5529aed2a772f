"""Adding and removing repos, for the API and on a page: for operators, and for who is admin of a repo on its forge."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from albatros.db import pages
from albatros.domain.access import Scope
from albatros.errors import AlbatrosError, BadInputError, ForbiddenError, NotFoundError, UnauthorizedError
from albatros.flows.access import Unseen
from albatros.flows.join import Joined, is_listed, join, leave, look, read_address
from albatros.forges.base import Hook
from albatros.http.caller import Caller
from albatros.http.deps import Context
from albatros.http.login import Form, FormCaller, PageCaller, PageViewer
from albatros.http.render import Viewer, page
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(include_in_schema=False)
MAX_ADDRESS = 1024


def add(caller: Caller, forge: str, owner: str, name: str) -> Joined:
    """Make or repair a repo's webhook and let it build. Raises NotFoundError, ForbiddenError or ForgeError.

    Whoever is admin of a repo on its forge may add it where the forge's settings let it build; only an operator may let
    others build.
    """
    context = caller.context
    caller.check(Unseen(forge, owner, name), f"repo {forge}/{owner}/{name}", Scope.ADMIN)
    adapter = context.forges.get(forge)
    if adapter is None:
        raise NotFoundError(f"no forge named {forge!r} is configured here")
    if caller.who.of_forge and not is_listed(context.settings, forge, f"{owner}/{name}"):
        raise ForbiddenError(f"{owner}/{name} may not build here: ask an operator of this server to add it")
    joined = join(
        context.settings, context.database, adapter, context.hooks.get(forge), (owner, name),
        allow=not caller.who.of_forge,
    )  # fmt: skip
    log.info("repo added", forge=forge, repo=joined.repo.full_name, by=caller.name, hook=joined.hook.text)
    return joined


def remove(caller: Caller, forge: str, owner: str, name: str) -> Hook:
    """Take a repo's webhook away and let it build no more. Raises NotFoundError, ForbiddenError or ForgeError."""
    context = caller.context
    repo = caller.repo(forge, owner, name, Scope.ADMIN)
    hook = leave(context.settings, context.database, context.hooks.get(forge), repo)
    log.info("repo removed", forge=forge, repo=repo.full_name, by=caller.name, hook=hook.text)
    return hook


def hook_of(caller: Caller, forge: str, owner: str, name: str) -> Hook:
    """How a repo's webhook stands. Raises NotFoundError, ForbiddenError or ForgeError."""
    repo = caller.repo(forge, owner, name, Scope.ADMIN)
    return look(caller.context.settings, caller.context.hooks.get(forge), repo)


@router.get("/join")
def join_page(
    context: Context, caller: PageCaller, viewer: PageViewer, repo: Annotated[str, Query(max_length=MAX_ADDRESS)] = ""
) -> Response:
    """The form; with a repo that is known here, how its webhook stands."""
    if not viewer.form_token:
        raise UnauthorizedError("only who is logged in adds repos")
    if not repo:
        return _page(viewer, "")
    named = read_address(context.settings, repo)
    caller.check(Unseen(*named), f"repo {'/'.join(named)}", Scope.ADMIN)
    with context.database.read() as session:
        known = pages.find_repo(session, *named)
    hook = look(context.settings, context.hooks.get(named[0]), known) if known is not None else None
    return _page(viewer, "/".join(named), hook=hook, known=known is not None)


@router.post("/join")
def join_form(context: Context, caller: FormCaller, viewer: PageViewer, form: Form) -> Response:
    """The buttons: add, which repairs too, and remove."""
    repo = form.get("repo", "").strip()[:MAX_ADDRESS]
    try:
        named = read_address(context.settings, repo)
        if form.get("action") == "remove":
            return _page(viewer, "/".join(named), hook=remove(caller, *named), known=True)
        joined = add(caller, *named)
    except (BadInputError, ForbiddenError, NotFoundError) as error:
        return _page(viewer, repo, problem=error)
    return _page(viewer, "/".join(named), hook=joined.hook, known=True)


def _page(
    viewer: Viewer, repo: str, *, hook: Hook | None = None, known: bool = False, problem: AlbatrosError | None = None
) -> Response:
    status = HTTPStatus(problem.status) if problem is not None else HTTPStatus.OK
    told = problem.detail if problem is not None else ""
    return page(
        "join.html", viewer=viewer, here="repos", status=status, repo=repo, hook=hook, known=known, problem=told
    )
