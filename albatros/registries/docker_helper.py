"""Credential helpers of docker, `docker-credential-NAME`: programs that keep what `docker login` was told.

The host goes in and the secret comes out by pipes; neither is ever an argument (docker-credential-helpers, README).
"""

from __future__ import annotations

import json
import re
import subprocess
from shutil import which

from albatros.errors import ConfigError
from albatros.registries.base import Credentials

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECONDS = 30
_ANSWER_LIMIT = 64 << 10
_NOT_FOUND = "credentials not found in native keychain"
_IDENTITY_TOKEN = "<token>"  # noqa: S105 - the user name that says what the secret is


def ask_helper(helper: str, server: str, origin: str) -> Credentials | None:
    """What a helper keeps for `server`, None for nothing. `origin` is the file that names it. Raises ConfigError."""
    program = f"docker-credential-{helper}"
    if not _NAME.fullmatch(helper) or which(program) is None:
        raise ConfigError(f"{origin} names the credential helper {program[:80]!r}, which is not on PATH")
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(
            f"{program}, named by {origin}, gave no answer for {server}: {type(error).__name__}"
        ) from error
    if done.returncode:
        # What it prints then is a message and no secret, but only this one is known to mean that nothing is wrong.
        if _NOT_FOUND in done.stdout[:_ANSWER_LIMIT].decode("utf-8", "replace"):
            return None
        raise ConfigError(f"{program}, named by {origin}, failed for {server} with status {done.returncode}")
    return _parse(done.stdout, f"{program} (named by {origin})", server)


def _parse(answer: bytes, origin: str, server: str) -> Credentials:
    try:
        value = json.loads(answer) if len(answer) <= _ANSWER_LIMIT else None
    except (ValueError, RecursionError):
        value = None
    user, secret = (value.get("Username"), value.get("Secret")) if isinstance(value, dict) else (None, None)
    if not isinstance(user, str) or not isinstance(secret, str) or not secret:
        raise ConfigError(f"{origin} gave nothing usable for {server}; run docker login {server}")
    if user == _IDENTITY_TOKEN:
        return Credentials("", "", origin, secret)
    return Credentials(user, secret, origin)
