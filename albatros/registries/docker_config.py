"""Credentials from docker's own `config.json`: a helper for the host, one for all hosts, or `auths` in the file."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from pathlib import Path

from albatros.domain import docker_hub
from albatros.errors import ConfigError
from albatros.registries.base import Credentials
from albatros.registries.docker_helper import ask_helper

_DOCKER_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where docker keeps it: `$DOCKER_CONFIG/config.json`, else below the home directory."""
    directory = environment.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def find_credentials(host: str, path: Path) -> Credentials | None:
    """The credentials for `HOST[:PORT]`; None when the file or the host in it is missing. Raises ConfigError.

    Precedence as docker's: `credHelpers` for the host, else `credsStore`, else `auths`.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as docker's configuration: {type(error).__name__}") from error
    if not isinstance(config, dict):
        return None
    keys = _DOCKER_HUB_KEYS if host == docker_hub.HOST else (host, f"https://{host}", f"http://{host}")
    helpers = _mapping(config.get("credHelpers"))
    helper = next((helpers[key] for key in keys if key in helpers), config.get("credsStore"))
    if isinstance(helper, str) and helper and (found := ask_helper(helper, keys[0], str(path))):
        return found
    auths = _mapping(config.get("auths"))
    entry = next((entry for key in keys if (entry := _mapping(auths.get(key)))), None)
    return _credentials(entry, host, path) if entry else None


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _credentials(entry: Mapping[str, object], host: str, path: Path) -> Credentials:
    user, password, packed = entry.get("username"), entry.get("password"), entry.get("auth")
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials("", "", str(path), token)
    if isinstance(packed, str) and packed:
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = None
    if not isinstance(user, str) or not isinstance(password, str) or not user:
        raise ConfigError(f"{path} has an entry for {host} without a usable user and password; run docker login {host}")
    return Credentials(user, password.rstrip("\0"), str(path))
