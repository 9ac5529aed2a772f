"""Reading settings: the file, then the environment over it, then secrets from files, then every check at once.

An error names the key and what to do, never a value that could be a secret.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_origin

from pydantic import SecretStr, ValidationError

from albatros.errors import ConfigError
from albatros.settings.model import Settings, known_keys, sections

ENVIRONMENT_PREFIX = "ALBATROS_"


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read settings from a TOML file (None: no file) and the environment. Raises ConfigError."""
    data = _read_file(path) if path is not None else {}
    _overlay_environment(data, environment)
    origin = str(path) if path else "the environment"
    resolved = {section: _read_secret_files(section, value, origin) for section, value in data.items()}
    try:
        return Settings.model_validate(resolved)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + "; ".join(_explain(error))) from error


def private_files(path: Path) -> list[Path]:
    """The configuration file and every file that it takes a secret from: what a runner must not read."""

    def named(value: object) -> list[Path]:
        if isinstance(value, list):
            return [found for item in value for found in named(item)]
        if not isinstance(value, dict):
            return []
        own = [Path(item) for key, item in value.items() if key.endswith("_file") and isinstance(item, str)]
        return own + [found for item in value.values() for found in named(item)]

    return [path, *named(_read_file(path))]


def _read_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; give a file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _overlay_environment(data: dict[str, object], environment: Mapping[str, str]) -> None:
    for key, value in environment.items():
        if not key.startswith(ENVIRONMENT_PREFIX) or "__" not in key:
            continue
        section, _, name = key.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        table = data.setdefault(section, {})
        if not isinstance(table, dict) or _is_list_of_tables(section):
            raise ConfigError(
                f"{key}: the environment can only set keys of a plain [section]; use the file for {section}"
            )
        table[name] = _parse_list(key, value) if _is_list(section, name) else value


def _is_list_of_tables(section: str) -> bool:
    field = Settings.model_fields.get(section)
    return field is not None and get_origin(field.annotation) is tuple


def _is_list(section: str, name: str) -> bool:
    model = sections().get(section)
    field = model.model_fields.get(name) if model else None
    return field is not None and get_origin(field.annotation) is tuple


def _parse_list(key: str, value: str) -> object:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{key} is not a TOML list such as ["a", "b"]: {error}') from error


def _read_secret_files(section: str, value: object, origin: str) -> object:
    """A section with each `SECRET_file` replaced by what the file holds."""
    if isinstance(value, list):
        return [_read_secret_files(section, item, origin) for item in value]
    model = sections().get(section)
    if not isinstance(value, dict) or model is None:
        return value
    secret = {name for name, field in model.model_fields.items() if field.annotation is SecretStr}
    result = _replace_files(value, secret, origin)
    for name, field in model.model_fields.items():
        if field.annotation == dict[str, SecretStr] and isinstance(table := result.get(name), dict):
            # Keys of these are hosts, which hold no underscore.
            result[name] = _replace_files(table, {key.removesuffix("_file") for key in table}, origin)
    return result


def _replace_files(table: Mapping[str, object], secret: set[str], origin: str) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, item in table.items():
        plain = key.removesuffix("_file")
        if plain == key or plain not in secret:
            result[key] = item
        elif plain in table:
            raise ConfigError(f"{origin}: both {plain} and {key} are set; keep one")
        else:
            result[plain] = _read_secret(key, str(item), origin)
    return result


def _read_secret(key: str, path: str, origin: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{origin}: {key} = {path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{origin}: {key} = {path!r} is not text in UTF-8") from error


def _explain(error: ValidationError) -> list[str]:
    return [_explain_one(tuple(item["loc"]), item["type"], item["msg"]) for item in error.errors(include_input=False)]


def _explain_one(location: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(str(part) for part in location) or "settings"
    if kind != "extra_forbidden":
        return f"{where}: {message.removeprefix('Value error, ')}"
    known = known_keys(location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"
