"""API tokens of whoever calls: list, make, revoke."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path

from albatros.flows.tokens import make_token, own_tokens, revoke_token
from albatros.http.deps import AdminSomewhere, Context
from albatros.http.params import MAX_ID
from albatros.http.schemas import MadeTokenOut, Page, TokenIn, TokenOut
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(prefix="/api/v1", tags=["tokens"])


@router.get("/tokens")
def list_tokens(context: Context, caller: AdminSomewhere) -> Page[TokenOut]:
    """Your tokens, without their secrets; for an admin token of the server, the server's."""
    items = [TokenOut.model_validate(row) for row in own_tokens(context.database, caller.who)]
    return Page(items=items, next=None)


@router.post("/tokens", status_code=HTTPStatus.CREATED)
def create_token(context: Context, caller: AdminSomewhere, body: TokenIn) -> MadeTokenOut:
    """Make a token, and see it this once; it never does more than you may at the moment."""
    row, token = make_token(context.database, caller.who, body.name, body.scope, body.days, body.bound)
    log.info("token made", token=row.name, scope=row.scope, only=row.bound, by=caller.name)
    return MadeTokenOut(**TokenOut.model_validate(row).__dict__, token=token)


@router.delete("/tokens/{id}", status_code=HTTPStatus.NO_CONTENT)
def revoke_own_token(
    context: Context, caller: AdminSomewhere, token_id: Annotated[int, Path(alias="id", ge=1, le=MAX_ID)]
) -> None:
    """End one of your tokens: from the next call on nobody gets in with it."""
    revoke_token(context.database, caller.who, token_id)
    log.info("token revoked", token=token_id, by=caller.name)
