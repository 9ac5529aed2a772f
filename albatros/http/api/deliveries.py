"""What forges delivered, and what became of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from albatros.db import queries
from albatros.http.api.shapes import delivery_out
from albatros.http.deps import AdminCaller, Context
from albatros.http.params import Cursor, Limit, check_forge, decode_cursor, encode_cursor
from albatros.http.schemas import DeliveryOut, Page

router = APIRouter(prefix="/api/v1", tags=["deliveries"])


@router.get("/deliveries")
def list_deliveries(
    context: Context,
    _caller: AdminCaller,
    forge: Annotated[str, Query(max_length=63, description="of this forge only")] = "",
    cursor: Cursor = "",
    limit: Limit = 50,
) -> Page[DeliveryOut]:
    """The newest deliveries, without their bodies."""
    part = queries.Slice(limit + 1, decode_cursor("deliveries", cursor))
    with context.database.read() as session:
        found = queries.list_deliveries(session, part, check_forge(forge) if forge else "")
    shown = [delivery_out(row) for row in found[:limit]]
    return Page(items=shown, next=encode_cursor("deliveries", shown[-1].id) if len(found) > limit else None)
