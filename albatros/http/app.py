"""The web application: every router, and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from albatros.http import (
    account,
    dashboard,
    joining,
    live,
    login,
    oauth,
    problems,
    render,
    runner_api,
    runner_images,
    webhooks,
)
from albatros.http.api import artifacts, builds, deliveries, images, jobs, repos, secrets, system, tokens
from albatros.http.deps import AppContext
from albatros.http.guards import BodyLimit, LastCatch, SecurityHeaders
from albatros.http.hub import Hub
from albatros.http.proxies import TrustedProxies, parse_networks

THREADS = 16
"""Calls that may be at the database or the store at once; the others wait their turn."""
_OPEN_ROOMS = (webhooks, runner_api, runner_images, system, dashboard, joining, login, oauth, account, render)
"""What is answered without a token, or knows its callers in another way."""
_API_ROOMS = (builds, jobs, repos, images, artifacts, deliveries, secrets, tokens, live)
_BEARER = HTTPBearer(auto_error=False, description="made by `albatros token create`")
"""For the OpenAPI document alone: deps.py judges the token."""
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
        generate_unique_id_function=_operation_id,
        responses={"default": problems.DOCUMENTED},
    )
    app.state.context = context
    app.state.hub = Hub(context.database, context.signals)
    app.state.answers = system.Answers()
    for room in _OPEN_ROOMS:
        app.include_router(room.router)
    for room in _API_ROOMS:
        app.include_router(room.router, dependencies=[Security(_BEARER)])
    problems.install(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(LastCatch)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TrustedProxies, trusted=trusted)
    return app


def _operation_id(route: APIRoute) -> str:
    """The name of its function, which generated clients call theirs after."""
    return route.name


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield
    app.state.hub.close()
