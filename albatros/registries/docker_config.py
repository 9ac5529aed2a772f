"""Credentials from docker's own `config.json`: its `auths`, as `docker login` writes them without a helper."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from pathlib import Path

from albatros.errors import ConfigError
from albatros.registries.base import Credentials

_DOCKER_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where docker keeps it: `$DOCKER_CONFIG/config.json`, else below the home directory."""
    directory = environment.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def find_credentials(host: str, path: Path) -> Credentials | None:
    """The credentials for `HOST[:PORT]`; None when the file or the host in it is missing. Raises ConfigError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as docker's configuration: {type(error).__name__}") from error
    auths = config.get("auths") if isinstance(config, dict) else None
    if not isinstance(auths, dict):
        return None
    keys = _DOCKER_HUB_KEYS if host == "docker.io" else (host, f"https://{host}", f"http://{host}")
    entry = next((auths[key] for key in keys if isinstance(auths.get(key), dict)), None)
    return _credentials(entry, host, path) if entry else None


def _credentials(entry: Mapping[str, object], host: str, path: Path) -> Credentials:
    user, password, packed = entry.get("username"), entry.get("password"), entry.get("auth")
    if isinstance(packed, str) and packed:
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = None
    if not isinstance(user, str) or not isinstance(password, str) or not user:
        raise ConfigError(f"{path} has an entry for {host} without a usable user and password; run docker login {host}")
    return Credentials(user, password.rstrip("\0"), str(path))
