"""The web application: every router, and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI

from albatros.http import dashboard, live, login, problems, render, runner_api, webhooks
from albatros.http.api import artifacts, builds, deliveries, images, jobs, repos, system
from albatros.http.deps import AppContext
from albatros.http.guards import BodyLimit, LastCatch, SecurityHeaders
from albatros.http.hub import Hub
from albatros.http.proxies import TrustedProxies, parse_networks

THREADS = 16
"""Calls that may be at the database or the store at once; the others wait their turn."""
_ROOMS = (
    webhooks,
    runner_api,
    builds,
    jobs,
    repos,
    images,
    artifacts,
    deliveries,
    live,
    system,
    dashboard,
    login,
    render,
)
OPENAPI_PATH = "/api/v1/openapi.json"


def create_app(context: AppContext) -> FastAPI:
    """The application of one server. Raises ConfigError for unusable `server.trusted_proxies`."""
    trusted = parse_networks(context.settings.server.trusted_proxies)
    app = FastAPI(
        title="Albatros",
        version=context.version,
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.context = context
    app.state.hub = Hub(context.database, context.signals)
    app.state.answers = system.Answers()
    for room in _ROOMS:
        app.include_router(room.router)
    problems.install(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(LastCatch)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TrustedProxies, trusted=trusted)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield
    app.state.hub.close()
