"""Images with their Publications, and the registries that are configured."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query

from albatros.db import queries
from albatros.errors import NotFoundError
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
    part = queries.Slice(limit + 1, decode_cursor("images", cursor), caller.public_only)
    with context.database.read() as session:
        found = queries.list_images(session, part, build)
        shown = found[:limit]
        publications = queries.publications_of(session, [image.id for image in shown])
    following = encode_cursor("images", shown[-1].id) if len(found) > limit else None
    return Page(items=images_out(shown, publications), next=following)


@router.get("/images/{id}")
def show_image(
    context: Context, caller: Reader, image_id: Annotated[int, Path(alias="id", ge=1, le=MAX_ID)]
) -> ImageOut:
    """One image."""
    with context.database.read() as session:
        image = queries.find_image(session, image_id, public_only=caller.public_only)
        if image is None:
            raise NotFoundError(f"there is no image {image_id}, or it is not for you to see")
        publications = queries.publications_of(session, [image_id])
    return images_out([image], publications)[0]


@router.get("/registries")
def list_registries(context: Context, caller: Reader) -> Page[RegistryOut]:
    """The registries that images are published to."""
    items = [
        RegistryOut(
            name=registry.name,
            url=redacted(registry.url, paths=not caller.public_only),
            public=registry.public,
            required=registry.required,
            names=list(registry.names),
            repos=list(registry.repos),
            refs=list(registry.refs),
        )
        for registry in context.settings.registries
        if registry.public or not caller.public_only
    ]
    return Page(items=items, next=None)


def redacted(url: str, *, paths: bool) -> str:
    """An address without user, password and query, where somebody may have put a secret; a directory if `paths`."""
    if url.startswith("dir:"):
        return url if paths else "dir:"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
