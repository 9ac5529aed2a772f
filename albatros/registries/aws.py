"""Keys for S3: the AWS variables, else a profile of the shared credentials file, as AWS's own tools look for them."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from albatros.errors import ConfigError
from albatros.registries.base import Credentials

_DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class S3Keys:
    """A key's id and secret, with the token of a session if it has one; `origin` says where they came from."""

    key_id: str
    secret: str = field(repr=False)
    origin: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, credentials: Credentials) -> S3Keys:
        """Configured credentials: the user is the key's id, the password its secret."""
        return cls(credentials.username, credentials.password, credentials.origin)


def find_keys(environment: Mapping[str, str] = os.environ) -> S3Keys:
    """The keys that a command uses. Raises ConfigError when there are none, which says where they may be put."""
    key_id, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        return S3Keys(key_id, secret, "AWS_ACCESS_KEY_ID", environment.get("AWS_SESSION_TOKEN") or None)
    if key_id or secret:
        raise ConfigError("of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set; set both")
    path = _credentials_path(environment)
    profile = environment.get("AWS_PROFILE") or _DEFAULT_PROFILE
    keys = _read_profile(path, profile)
    if keys is None:
        raise ConfigError(
            f"no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write profile {profile!r} into {path}"
        )
    return keys


def _credentials_path(environment: Mapping[str, str]) -> Path:
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE")
    return Path(named).expanduser() if named else Path.home() / ".aws" / "credentials"


def _read_profile(path: Path, profile: str) -> S3Keys | None:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, configparser.Error) as error:
        # The error's own text would repeat the line that it stumbled over, which may hold a secret.
        raise ConfigError(f"{path} cannot be read as AWS credentials: {type(error).__name__}") from None
    if not parser.has_section(profile):
        return None
    found = parser[profile]
    key_id, secret = found.get("aws_access_key_id", ""), found.get("aws_secret_access_key", "")
    if not key_id or not secret:
        raise ConfigError(f"profile {profile!r} in {path} lacks aws_access_key_id or aws_secret_access_key")
    return S3Keys(key_id, secret, f"profile {profile!r} in {path}", found.get("aws_session_token") or None)
