"""Images with their Publications, and the registries that are configured."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query

from albatros.db import queries
from albatros.http.api.shapes import images_out
from albatros.http.deps import Context, Reader
from albatros.http.params import MAX_ID, Cursor, Limit, decode_cursor, encode_cursor
from albatros.http.schemas import ImageOut, Page, RegistryOut

router = APIRouter(prefix="/api/v1", tags=["images"])
MANY_IMAGES = 20


@router.get("/images")
def list_images(
    context: Context,
    caller: Reader,
    build: Annotated[int | None, Query(ge=1, le=MAX_ID, description="of this build only")] = None,
    cursor: Cursor = "",
    limit: Limit = MANY_IMAGES,
) -> Page[ImageOut]:
    """The newest images."""
    part = queries.Slice(limit + 1, decode_cursor("images", cursor))
    found = caller.listed(partial(queries.list_images, part=part, build_id=build), lambda row: row.build.repo)
    shown = found[:limit]
    with context.database.read() as session:
        publications = queries.publications_of(session, [image.id for image in shown])
    following = encode_cursor("images", shown[-1].id) if len(found) > limit else None
    return Page(items=images_out(shown, publications), next=following)


@router.get("/images/{id}")
def show_image(
    context: Context, caller: Reader, image_id: Annotated[int, Path(alias="id", ge=1, le=MAX_ID)]
) -> ImageOut:
    """One image."""
    image = caller.image(image_id)
    with context.database.read() as session:
        publications = queries.publications_of(session, [image_id])
    return images_out([image], publications)[0]


@router.get("/registries")
def list_registries(context: Context, caller: Reader) -> Page[RegistryOut]:
    """The registries that images are published to; what may go there names repos, and is for those who see all."""
    all_of_it = caller.who.everywhere
    items = [
        RegistryOut(
            name=registry.name,
            url=redacted(registry.url, paths=all_of_it),
            public=registry.public,
            required=registry.required,
            names=list(registry.names) if all_of_it else [],
            repos=list(registry.repos) if all_of_it else [],
            refs=list(registry.refs) if all_of_it else [],
        )
        for registry in context.settings.registries
        if registry.public or all_of_it
    ]
    return Page(items=items, next=None)


def redacted(url: str, *, paths: bool) -> str:
    """An address without user, password and query, where somebody may have put a secret; a directory if `paths`."""
    if url.startswith("dir:"):
        return url if paths else "dir:"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
