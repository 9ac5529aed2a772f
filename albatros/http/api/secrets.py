"""Secrets: set, list, remove. A value goes in and never comes out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from albatros.db import secrets
from albatros.db.keyring import Keyring
from albatros.db.models import Secret
from albatros.domain.access import Scope
from albatros.domain.secrets import Place, check_name, check_refs, check_value
from albatros.errors import ForbiddenError, NotFoundError
from albatros.flows.allowed import check_repo
from albatros.http.caller import Caller
from albatros.http.deps import AdminSomewhere, AppContext, Context
from albatros.http.params import Cursor, Limit, decode_cursor, encode_cursor
from albatros.http.schemas import Page, SecretIn, SecretOut
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(prefix="/api/v1", tags=["secrets"])
PlaceQuery = Annotated[str, Query(max_length=450, description="FORGE/OWNER/REPO, FORGE/OWNER or server")]


@router.get("/secrets")
def list_secrets(
    context: Context, caller: AdminSomewhere, place: PlaceQuery = "", cursor: Cursor = "", limit: Limit = 50
) -> Page[SecretOut]:
    """Secrets without their values: of one place, or of all for an admin of the server."""
    wanted = _read_place(context, place) if place else None
    _check(caller, wanted)
    with context.database.read() as session:
        found = secrets.list_some(session, wanted, decode_cursor("secrets", cursor), limit + 1)
    shown = found[:limit]
    more = len(found) > limit
    return Page(items=[_out(row) for row in shown], next=encode_cursor("secrets", shown[-1].id) if more else None)


@router.put("/secrets")
def set_secret(context: Context, caller: AdminSomewhere, body: SecretIn) -> SecretOut:
    """Set a secret, whatever it was before: an access token for the host that it is named after, or a script's."""
    place = _read_place(context, body.place)
    _check(caller, place)
    if place.forge and place.forge not in context.forges:
        raise NotFoundError(f"no forge named {place.forge!r} is configured here")
    name, refs = check_name(body.name), check_refs(body.refs)
    value = check_value(name, body.value.get_secret_value())
    with context.database.write() as session:
        row = secrets.put(session, Keyring(context.settings.secrets_key), place, name, refs, value)
    log.info("secret set", place=str(place), secret=name, refs=list(refs), by=caller.name)
    return _out(row)


@router.delete("/secrets", status_code=HTTPStatus.NO_CONTENT)
def remove_secret(
    context: Context,
    caller: AdminSomewhere,
    place: PlaceQuery,
    name: Annotated[str, Query(max_length=300, description="the host or variable that it is")],
) -> None:
    """Remove a secret: no Job that starts from now on is given it."""
    wanted = _read_place(context, place)
    _check(caller, wanted)
    with context.database.write() as session:
        secrets.remove(session, wanted, check_name(name))
    log.info("secret removed", place=place, secret=name, by=caller.name)


def _read_place(context: AppContext, text: str) -> Place:
    place = Place.parse(text)
    if place.owner:
        check_repo(context.settings, place.forge, f"{place.owner}/{place.repo or 'x'}")
    return place


def _check(caller: Caller, place: Place | None) -> None:
    """Raise unless the caller is admin of the repo whose secrets they are, or of the server for all others."""
    if caller.who.everywhere:
        return
    if place is None or not place.repo:
        raise ForbiddenError(f"{caller.name!r} is not admin of this server; name a repo: FORGE/OWNER/REPO")
    caller.repo(place.forge, place.owner, place.repo, Scope.ADMIN)


def _out(row: Secret) -> SecretOut:
    return SecretOut(
        place=str(secrets.place_of(row)),
        name=row.name,
        refs=row.refs,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
