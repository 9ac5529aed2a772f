"""What `alba` calls inside a script: ask for an image of uploaded files to be published, and how far that is."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from albatros.domain.references import check_name, check_tag
from albatros.errors import BadInputError, UsageError
from albatros.flows import script_images
from albatros.flows.script_images import Asked, check_parts
from albatros.http.runner_api import Context, Nonce, Token, read_blob, read_json, read_nonce

router = APIRouter(include_in_schema=False)
MAX_ASKED = 64 << 10
MAX_PARTS = 100


@router.post("/runner/v1/images", status_code=HTTPStatus.ACCEPTED)
async def ask(request: Request, context: Context, token: Token) -> dict[str, int]:
    """Keep a script's request for an image; the same one again has the same id."""
    body = await read_json(request, MAX_ASKED)
    nonce, asked = read_nonce(body.get("nonce")), _asked(body)
    request_id = await run_in_threadpool(
        script_images.ask, context.database, context.settings, context.signals, token, nonce, asked
    )
    return {"id": request_id}


@router.get("/runner/v1/images/{request_id}")
async def outcome(request_id: int, context: Context, token: Token, nonce: Nonce) -> dict[str, str]:
    """How far a script's request for an image is."""
    found = await run_in_threadpool(script_images.outcome, context.database, context.settings, token, nonce, request_id)
    return asdict(found)


def _asked(body: dict[str, object]) -> Asked:
    registry, name, tag, parts = (body.get(key) for key in ("registry", "name", "tag", "parts"))
    if not isinstance(registry, str) or not isinstance(name, str) or not isinstance(tag, str):
        raise BadInputError("an image needs a registry, a name and a tag")
    if not isinstance(parts, list) or len(parts) > MAX_PARTS:
        raise BadInputError(f"parts must be a list of at most {MAX_PARTS} files")
    files = [item.get("file") if isinstance(item, dict) else None for item in parts]
    if not all(isinstance(file, str) for file in files):
        raise BadInputError("parts: an item needs a file, a digest and a size")
    try:
        check_name(name)
        check_tag(tag)
    except UsageError as error:
        raise BadInputError(error.detail) from error
    blobs = [read_blob(item) for item in parts]
    return Asked(registry, name, tag, check_parts([(str(file), blob) for file, blob in zip(files, blobs, strict=True)]))
