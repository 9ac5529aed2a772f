"""Rules of docs/architecture.md that import-linter cannot hold."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import ROOT

PACKAGE = ROOT / "albatros"
MODULES = sorted(PACKAGE.rglob("*.py"))
PYDANTIC_ROOMS = {
    *(f"settings/{name}.py" for name in ("base", "executors", "model", "reading")),
    "http/schemas.py",
}


def _room(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def _imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at whatever depth of the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _is_async(tree: ast.AST) -> bool:
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    return any(isinstance(node, kinds) for node in ast.walk(tree))


def runner_breaches(source: str) -> list[str]:
    """What a module of the runner imports that is neither its own nor in the standard library."""
    names = _imported(ast.parse(source))
    own = "albatros.runner"
    return [
        name
        for name in names
        if not (name == own or name.startswith(f"{own}.")) and name.partition(".")[0] not in sys.stdlib_module_names
    ]


def test_the_rules_can_be_broken() -> None:
    source = "import json, httpx\ndef f():\n    from albatros.errors import X\n    import albatros.runner.nix\n"
    assert runner_breaches(source) == ["httpx", "albatros.errors"]
    assert _is_async(ast.parse("async def f(): ..."))


@pytest.mark.parametrize("module", [m for m in MODULES if "runner" in m.parts], ids=_room)
def test_the_runner_needs_the_standard_library_alone(module: Path) -> None:
    assert runner_breaches(module.read_text()) == []


def test_async_lives_in_http_alone() -> None:
    found = {_room(module) for module in MODULES if _is_async(ast.parse(module.read_text()))}
    assert {room for room in found if not room.startswith("http/")} == set()


def test_pydantic_checks_at_the_edge_alone() -> None:
    importers = {
        _room(module)
        for module in MODULES
        if any(name.partition(".")[0] == "pydantic" for name in _imported(ast.parse(module.read_text())))
    }
    assert importers <= PYDANTIC_ROOMS
