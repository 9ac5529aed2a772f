"""What monitors and other sites ask, without a token: is it alive, can it work, how much, and how a repo stands.

None of it names a repo that is not public. The costly answers are kept for some seconds, whoever asks for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Generic, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from albatros.db import metrics, queries
from albatros.db.upsert import add_to_counters
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.states import BuildState
from albatros.errors import AlbatrosError, NotFoundError
from albatros.flows.allowed import check_repo
from albatros.http import prometheus
from albatros.http.badge import badge
from albatros.http.caller import Caller
from albatros.http.deps import AnyCaller, AppContext, Context
from albatros.http.live import LiveHub
from albatros.http.params import branch_filter, check_forge
from albatros.http.schemas import Health, Readiness
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(tags=["system"])
READY_SECONDS = 5.0
METRICS_SECONDS = 2.0
BADGE_SECONDS = 60
OK, UNAVAILABLE = "ok", "unavailable"

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """An answer that is made anew at most every so many seconds, by one caller while the others wait for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until = 0.0
        self._value: Value | None = None

    def get(self, make: Callable[[], Value]) -> Value:
        """The answer that is kept, or a new one."""
        with self._lock:
            if self._value is None or time.monotonic() >= self._until:
                self._value = make()
                self._until = time.monotonic() + self._seconds
            return self._value


class Answers:
    """The kept answers of one application."""

    def __init__(self) -> None:
        self.readiness: Kept[Readiness] = Kept(READY_SECONDS)
        self.metrics: Kept[str] = Kept(METRICS_SECONDS)


def _answers(request: Request) -> Answers:
    answers: Answers = request.app.state.answers
    return answers


@router.get("/healthz")
async def health(context: Context) -> Health:
    """The process answers."""
    return Health(status=OK, version=context.version)


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def ready(context: Context, request: Request) -> Response:
    """The database and the store can be written; 503 when one cannot."""
    found = _answers(request).readiness.get(lambda: _check(context))
    good = found.database == found.store == OK
    return JSONResponse(found.model_dump(), HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)


def _check(context: AppContext) -> Readiness:
    def write() -> None:
        # A transaction that writes nothing would go through on a full disk.
        with context.database.write() as session:
            add_to_counters(session, {"readiness_checks": 1})

    return Readiness(database=_try("database", write), store=_try("store", context.store.check))


def _try(part: str, check: Callable[[], None]) -> str:
    try:
        check()
    except AlbatrosError as error:
        log.error("the server is not ready", part=part, error=error.detail)
        return UNAVAILABLE
    return OK


@router.get("/metrics", response_class=Response, responses={200: {"content": {prometheus.CONTENT_TYPE: {}}}})
def show_metrics(context: Context, hub: LiveHub, request: Request) -> Response:
    """Counts for Prometheus."""

    def make() -> str:
        with context.database.read() as session:
            figures = metrics.gather(session)
        return prometheus.render(figures, streams=hub.size(), version=context.version)

    return Response(_answers(request).metrics.get(make), media_type=prometheus.CONTENT_TYPE)


@router.get(
    "/badges/{forge}/{owner:path}/{name}.svg",
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}}}},
)
def show_badge(
    context: Context,
    caller: AnyCaller,
    forge: str,
    owner: str,
    name: str,
    branch: Annotated[str, Query(max_length=1024, description="default: the repo's default branch")] = "",
) -> Response:
    """How a branch stands, as a picture; `unknown` for what there is not or is not to be seen."""
    full_name = check_repo(context.settings, check_forge(forge), f"{owner}/{name}")
    svg = badge(_branch_state(context, caller, (forge, *full_name), branch_filter(branch)))
    # Other sites show it: that is what it is for. What one caller may see is not for a cache to show to others.
    private = "" if caller.who.scope is None else "private, "
    headers = {"Cache-Control": f"{private}max-age={BADGE_SECONDS}", "Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(svg, media_type="image/svg+xml", headers=headers)


def _branch_state(context: AppContext, caller: Caller, repo: tuple[str, str, str], ref: str) -> BuildState | None:
    try:
        found = caller.repo(*repo)
    except NotFoundError:
        return None
    with context.database.read() as session:
        build = queries.newest_build_of_ref(session, found.id, ref or BRANCH_PREFIX + found.default_branch)
        return build.state if build is not None else None
