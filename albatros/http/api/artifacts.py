"""Artifacts: list, show, download."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from albatros.db import queries
from albatros.domain.references import parse_digest
from albatros.errors import NotFoundError
from albatros.http.api.shapes import artifact_out, file_name
from albatros.http.deps import Context, Reader
from albatros.http.params import MAX_ID, ArtifactId, Cursor, Limit, decode_cursor, encode_cursor
from albatros.http.ranges import Content, answer
from albatros.http.schemas import ArtifactOut, Page
from albatros.store.base import CHUNK

router = APIRouter(prefix="/api/v1", tags=["artifacts"])
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


@router.get("/artifacts")
def list_artifacts(
    caller: Reader,
    build: Annotated[int | None, Query(ge=1, le=MAX_ID, description="of this build only")] = None,
    job: Annotated[int | None, Query(ge=1, le=MAX_ID, description="of this job only")] = None,
    cursor: Cursor = "",
    limit: Limit = 50,
) -> Page[ArtifactOut]:
    """The newest artifacts."""
    part = queries.Slice(limit + 1, decode_cursor("artifacts", cursor))
    fetch = partial(queries.list_artifacts, part=part, build_id=build, job_id=job)
    found = caller.listed(fetch, lambda row: row.job.build.repo)
    shown = found[:limit]
    following = encode_cursor("artifacts", shown[-1].id) if len(found) > limit else None
    return Page(items=[artifact_out(artifact) for artifact in shown], next=following)


@router.get("/artifacts/{id}")
def show_artifact(caller: Reader, artifact_id: ArtifactId) -> ArtifactOut:
    """One artifact."""
    return artifact_out(caller.artifact(artifact_id))


@router.head("/artifacts/{id}/content", include_in_schema=False)
@router.get(
    "/artifacts/{id}/content",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "the range that was asked for"},
        304: {"description": "If-None-Match names its digest"},
    },
)
def download(context: Context, caller: Reader, request: Request, artifact_id: ArtifactId) -> Response:
    """Its bytes, as a file to be saved; takes Range, and its ETag is its digest."""
    artifact = caller.artifact(artifact_id)
    digest = parse_digest(artifact.digest)
    if context.store.size(digest) != artifact.size:
        raise NotFoundError(f"the bytes of artifact {artifact_id} are not in the store any more; rerun its build")

    def read(start: int, stop: int) -> Iterator[bytes]:
        with context.store.open(digest) as file:
            file.seek(start)
            while start < stop and (data := file.read(min(CHUNK, stop - start))):
                yield data
                start += len(data)

    name = file_name(artifact)
    plain = "".join(char if char in _PLAIN else "_" for char in name)
    headers = {
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "Cache-Control": "private, no-cache",
    }
    content = Content(artifact.size, "application/octet-stream", read, etag=artifact.digest, headers=headers)
    return answer(request, content)
