"""settings.md and the example config, from the settings' models."""

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from albatros.settings import Settings, sections
from scripts.reference.markdown import code, table

INTRODUCTION = """# Settings

`albatros serve --config albatros.toml` reads a TOML file. Everything has a default except the forges.

- Every key `name` of a section `[section]` can also come from the environment, as `ALBATROS_SECTION__NAME`, which goes
  before the file. A list is written there as in TOML: `ALBATROS_EXECUTOR__SANDBOX_PATHS='["/bin"]'`. Sections in two
  brackets come from the file alone.
- Every secret `name` can also be given as `name_file`, a path whose content is the secret.
- An unknown key is an error that names the nearest known one.

`deploy/albatros.example.toml` shows every key with its default.
"""

EXAMPLE_HEAD = """# Albatros, an example of every setting. docs/reference/settings.md says the same as a table.
#
# `#key = value` is a setting at its default: take the # away to change it. Every key can also come from the environment
# (ALBATROS_SERVER__LISTEN for `listen` in [server]), and every secret from a file (`token_file = "PATH"` for `token`).
"""

SAMPLES: dict[str, dict[str, object]] = {
    "forges": {
        "name": "home",
        "kind": "gitea",
        "url": "https://git.example.org",
        "webhook_secret": "what `openssl rand -hex 32` prints",
        "repos": ["alba/*"],
    },
    "builders": {"name": "house", "job": "builder", "forge": "home", "repos": ["alba/firmware"]},
    "operators": {"forge": "home", "login": "alba"},
    "registries": {"name": "public", "url": "dir:/srv/registry"},
}
"""What has no default, filled in as somebody might."""


def page() -> str:
    """settings.md."""
    parts = [INTRODUCTION]
    for name, model in sections().items():
        parts.append(f"## {_title(name)}\n\n{_purpose(model)}\n")
        rows = (_row(key, field) for key, field in model.model_fields.items())
        parts.append(table(["key", "value", "default", "meaning"], rows))
    return "\n".join(parts)


def example() -> str:
    """deploy/albatros.example.toml: it loads as it is, and does so with every # before a key taken away."""
    parts = [EXAMPLE_HEAD]
    for name, model in sections().items():
        lines = [f"# {_purpose(model)}", _title(name) if name not in SAMPLES else "#" + _title(name)]
        for key, field in model.model_fields.items():
            value = SAMPLES.get(name, {}).get(key, _default(field))
            lines += [f"# {line}" for line in _wrapped(field.description or "")]
            lines.append(f"#{key} = {_toml(value)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _title(name: str) -> str:
    return f"[[{name}]]" if name in SAMPLES else f"[{name}]"


def _purpose(model: type[BaseModel]) -> str:
    """The docstring's sentence without the section's name."""
    text = " ".join((model.__doc__ or "").split()).partition(": ")[2]
    return text[:1].upper() + text[1:]


def _row(key: str, field: FieldInfo) -> list[str]:
    names = code(key) + (f", {code(key + '_file')}" if field.annotation is SecretStr else "")
    default = "required" if field.is_required() else code(_toml(_default(field)))
    return [names, _kind(field), default, field.description or ""]


def _kind(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(item, name)}" for item in field.metadata for name, sign in _BOUNDS if hasattr(item, name)
    ]
    return ", ".join([_type(field.annotation), *bounds])


_BOUNDS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
_PLAIN: dict[object, str] = {
    bool: "true or false",
    int: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
    NoneType: "nothing",
    dict[str, SecretStr]: "table of secrets",
    tuple[str, ...]: "list of texts",
}


def _type(annotation: object) -> str:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return ", ".join(code(member.value) for member in annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(code(str(value)) for value in get_args(annotation))
    raise TypeError(f"say in scripts/reference/settings.py what a person calls the type {annotation}")


def _default(field: FieldInfo) -> object:
    return field.get_default(call_default_factory=True, validated_data={})


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        if not value:
            return "{}"
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, SecretStr):
        return _toml(value.get_secret_value())
    return json.dumps(str(value))


def _wrapped(text: str, width: int = 116) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line


if set(SAMPLES) - set(Settings.model_fields):
    raise KeyError("a sample is of no section")
