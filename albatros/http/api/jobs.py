"""Jobs, and their logs as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from albatros.db import logs, pages, queries
from albatros.db.models import Attempt
from albatros.db.sight import ALL
from albatros.errors import NotFoundError
from albatros.http.api.shapes import artifact_out, attempt_out
from albatros.http.deps import AppContext, Context, Reader
from albatros.http.params import JobId
from albatros.http.ranges import Content, answer
from albatros.http.schemas import BuildSummary, JobDetail, JobSummary

router = APIRouter(prefix="/api/v1", tags=["jobs"])
MAX_ARTIFACTS = 500
MAX_NEEDS = 1_000
LOG_TYPE = "text/plain; charset=utf-8"


@router.get("/jobs/{id}")
def show_job(context: Context, caller: Reader, job_id: JobId) -> JobDetail:
    """One job with its tries, what it needs and what it made."""
    job = caller.job(job_id)
    with context.database.read() as session:
        needs = pages.list_needs(session, job_id, MAX_NEEDS)
        attempts = pages.list_attempts(session, job_id)
        artifacts = queries.list_artifacts(session, ALL, queries.Slice(MAX_ARTIFACTS), job_id=job_id)
    return JobDetail(
        **JobSummary.model_validate(job).__dict__,
        build=BuildSummary.model_validate(job.build),
        needs=[one.id for one in needs],
        attempts=[attempt_out(attempt) for attempt in attempts],
        artifacts=[artifact_out(artifact) for artifact in artifacts],
    )


@router.head("/jobs/{id}/log", include_in_schema=False)
@router.get(
    "/jobs/{id}/log",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, 206: {"description": "the range that was asked for"}},
)
def show_log(
    context: Context,
    caller: Reader,
    request: Request,
    job_id: JobId,
    attempt: Annotated[int | None, Query(ge=1, le=10_000, description="which try; default: the newest")] = None,
) -> Response:
    """The log as far as it is written, as text; takes Range."""
    caller.job(job_id)
    with context.database.read() as session:
        found = queries.find_attempt(session, job_id, attempt)
    if found is None:
        if attempt is not None:
            raise NotFoundError(f"job {job_id} has no attempt {attempt}")
        return answer(request, Content(0, LOG_TYPE, lambda _start, _stop: iter(())))
    if found.log_bytes:
        # A log that was taken away must be told before the answer begins.
        logs.read(context.database, context.store, found.id, 0, 1)
    return answer(request, _log_content(context, found))


def _log_content(context: AppContext, attempt: Attempt) -> Content:
    def read(start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            data = logs.read(context.database, context.store, attempt.id, start, stop - start)
            if not data:
                return
            yield data
            start += len(data)

    headers = {"X-Albatros-Attempt": str(attempt.number)}
    return Content(attempt.log_bytes, LOG_TYPE, read, etag=attempt.log_digest or "", headers=headers)
