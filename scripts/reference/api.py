"""api.md, from the application's own OpenAPI document and its routes."""

import importlib
import inspect
import pkgutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from albatros import errors, http
from albatros.db.session import connect
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.http.app import OPENAPI_PATH, create_app
from albatros.http.deps import AppContext
from albatros.http.problems import PROBLEM_TYPE
from albatros.settings import Settings
from albatros.store.files import FileStore
from scripts.reference.markdown import code, table

INTRODUCTION = f"""# REST API

`GET {OPENAPI_PATH}` is this page as an OpenAPI document. Send `Authorization: Bearer alb_…` with a token that
`albatros token create` or your settings page made; on a server with `[server] public = true` reading public repos needs
none. Lists come in pages: pass `next` of an answer as `cursor` of the next call. Times are UTC.
"""
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _NoRunner:
    """The runner's zipapp is no part of the reference."""

    content: bytes = b""
    digest: str = ""


def page() -> str:
    """api.md."""
    app = application()
    document: Json = app.openapi()
    schemas: Json = document["components"]["schemas"]
    parts = [INTRODUCTION, "## Calls\n"]
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            parts += _call(method.upper(), path, call)
    parts.append("## Bodies\n")
    for name, schema in sorted(schemas.items()):
        if name not in {"HTTPValidationError", "ValidationError"}:
            parts += _schema(name, schema)
    parts += [_problems(), _other_paths()]
    return "\n".join(parts)


def application() -> FastAPI:
    """The web application, on parts that hold nothing and are closed again."""
    with tempfile.TemporaryDirectory() as directory:
        database = connect(f"sqlite:///{Path(directory) / 'none.sqlite3'}")
        signals = Signals()
        writer = Writer(database, signals)
        store = FileStore(Path(directory) / "blobs")
        app = create_app(AppContext(Settings(), database, store, {}, writer, signals, _NoRunner(), "VERSION"))
        writer.close()
        database.dispose()
        return app


def unlisted_routes() -> list[APIRoute]:
    """Routes that are no part of the OpenAPI document: pages, and what runners call."""
    names = [module.name for module in pkgutil.walk_packages(http.__path__, f"{http.__name__}.")]
    routers = [getattr(importlib.import_module(name), "router", None) for name in names]
    routes = [route for router in routers if isinstance(router, APIRouter) for route in router.routes]
    return [route for route in routes if isinstance(route, APIRoute) and not route.include_in_schema]


def _call(method: str, path: str, call: Json) -> Iterator[str]:
    yield f"### {method} {path}\n"
    yield _text(call.get("description") or call.get("summary") or "") + "\n"
    rows = [
        [code(item["name"]), item["in"], _type(item["schema"]), _text(item.get("description", ""))]
        for item in call.get("parameters", [])
    ]
    if rows:
        yield table(["parameter", "in", "type", "meaning"], rows)
    if body := call.get("requestBody"):
        yield "Body: " + "; ".join(_content(body["content"])) + ".\n"
    answers = [
        [status, "; ".join(_content(answer.get("content", {}))), _answer(answer.get("description", ""))]
        for status, answer in call["responses"].items()
        if status != str(HTTPStatus.UNPROCESSABLE_ENTITY.value)
    ]
    yield table(["answer", "body", "meaning"], answers)


def _answer(text: str) -> str:
    """What FastAPI says of an answer that nobody described tells nothing."""
    return "" if text == "Successful Response" else _text(text)


def _content(content: Json) -> Iterator[str]:
    for media_type, value in content.items():
        kind = _type(value.get("schema", {}))
        yield kind if media_type == "application/json" else f"{code(media_type)} {kind}".strip()


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}\n"
    if "description" in schema:
        yield _text(schema["description"]) + "\n"
    if "enum" in schema:
        yield ", ".join(code(str(value)) for value in schema["enum"]) + "\n"
    rows = [
        [
            code(key),
            _type(value),
            "" if key in schema.get("required", ()) else "optional",
            _text(value.get("description", "")),
        ]
        for key, value in schema.get("properties", {}).items()
    ]
    if rows:
        yield table(["field", "type", "", "meaning"], rows)


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return f"{schema.get('type', '')} {schema.get('format', '')}".strip()


def _problems() -> str:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.AlbatrosError)]
    rows = {
        kind.slug: [code(PROBLEM_TYPE + kind.slug), str(int(kind.status)), kind.title, inspect.getdoc(kind) or ""]
        for kind in sorted(kinds, key=lambda kind: len(kind.__mro__), reverse=True)
    }
    return (
        "## Errors\n\nEvery error is `application/problem+json` (RFC 9457) with `type`, `title`, `status` and "
        "`detail`, which says what happened and what to do next.\n\n"
        + table(["type", "status", "title", "meaning"], [rows[slug] for slug in sorted(rows)])
    )


def _other_paths() -> str:
    rows = [
        [
            code(f"{'/'.join(sorted(route.methods or ()))} {route.path}"),
            _text((inspect.getdoc(route.endpoint) or "").split("\n\n")[0]),
        ]
        for route in unlisted_routes()
        if route.methods != {"HEAD"}
    ]
    return (
        "## Other paths\n\nPages for people and the runner's protocol; they may change with any version.\n\n"
        + table(["path", "meaning"], sorted(rows, key=lambda row: row[0].partition(" ")[2]))
    )


def _text(text: str) -> str:
    return " ".join(text.split())
