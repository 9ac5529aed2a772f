"""The page of whoever is logged in: who they are here, and their API tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import RedirectResponse

from albatros.db.models import Token
from albatros.db.session import now
from albatros.domain.access import Scope, Who
from albatros.errors import AlbatrosError, BadInputError, ForbiddenError, UnauthorizedError
from albatros.flows.tokens import DAYS, MAX_DAYS, make_token, own_tokens, revoke_token
from albatros.http.deps import AppContext, Context
from albatros.http.login import AnyPageCaller, Form, FormCaller, PageViewer
from albatros.http.params import MAX_ID
from albatros.http.render import Viewer, page
from albatros.http.views import Moment, moment
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token in the list."""

    id: int
    name: str
    scope: str
    only: str
    created: Moment
    expires: Moment | None
    used: Moment | None


@router.get("/settings")
def settings(context: Context, caller: AnyPageCaller, viewer: PageViewer) -> Response:
    """Who they are here, and their tokens."""
    if not viewer.form_token:
        raise UnauthorizedError("this page is for those who are logged in")
    return _page(context, caller.who, viewer)


@router.post("/settings/tokens")
def create_token(context: Context, caller: FormCaller, viewer: PageViewer, form: Form) -> Response:
    """Make a token, and show it this once."""
    try:
        scope, days = _choices(form.get("scope", ""), form.get("days", ""))
        row, token = make_token(
            context.database, caller.who, form.get("name", ""), scope, days, form.get("only", "").strip()
        )
    except AlbatrosError as error:
        return _page(context, caller.who, viewer, problem=error.detail, status=error.status)
    log.info("token made", token=row.name, scope=row.scope, only=row.bound, by=caller.name)
    answer = _page(context, caller.who, viewer, made=token)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/settings/tokens/{token_id}/revoke")
def revoke(context: Context, caller: FormCaller, token_id: Annotated[int, Path(ge=1, le=MAX_ID)]) -> Response:
    """The button that ends a token."""
    revoke_token(context.database, caller.who, token_id)
    log.info("token revoked", token=token_id, by=caller.name)
    return RedirectResponse("/settings", HTTPStatus.SEE_OTHER)


def _page(
    context: AppContext,
    who: Who,
    viewer: Viewer,
    *,
    problem: str = "",
    made: str = "",
    status: HTTPStatus = HTTPStatus.OK,
) -> Response:
    try:
        rows: Sequence[Token] | None = own_tokens(context.database, who)
    except ForbiddenError:
        rows = None
    return page(
        "settings.html",
        viewer=viewer,
        here="settings",
        status=status,
        who=who,
        tokens=[_line(row) for row in rows] if rows is not None else None,
        scopes=list(Scope),
        days=DAYS,
        max_days=MAX_DAYS,
        made=made,
        problem=problem,
    )


def _line(row: Token) -> TokenLine:
    at = now()
    return TokenLine(
        id=row.id,
        name=row.name,
        scope=row.scope,
        only=row.bound,
        created=moment(row.created_at, at),
        expires=moment(row.expires_at, at) if row.expires_at else None,
        used=moment(row.last_used_at, at) if row.last_used_at else None,
    )


def _choices(scope: str, days: str) -> tuple[Scope, int]:
    if scope not in list(Scope):
        raise BadInputError("choose what the token may do: read, write or admin")
    if not (days.isascii() and days.isdigit() and len(days) < 5):
        raise BadInputError(f"a token lives for 1 to {MAX_DAYS} days")
    return Scope(scope), int(days)
