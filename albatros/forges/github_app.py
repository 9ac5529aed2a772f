"""Credentials for clones of one repo of GitHub each: installation tokens of a GitHub App.

The App signs for itself with its private key (a JWT with RS256, RFC 7519; GitHub, "Generating a JSON Web Token (JWT)
for a GitHub App"), and asks for a token that reads the contents of the one repo. GitHub ends it after an hour.
"""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta

from albatros.errors import ConfigError, ForgeError
from albatros.forges import payload
from albatros.forges.clone_tokens import CloneToken, CloneTokens
from albatros.forges.github_api import repo_path
from albatros.forges.rest import RestClient
from albatros.settings import ForgeSettings

USERNAME = "x-access-token"
_PAST, _FUTURE = 60, 300
"""Seconds: GitHub refuses a JWT from its future, and one that holds for more than ten minutes."""


class InstallationTokens(CloneTokens):
    """The installation tokens of one GitHub App. Raises ConfigError for a key that is none."""

    use = timedelta(minutes=30)

    def __init__(self, settings: ForgeSettings, api: RestClient) -> None:
        # Loaded by servers with a GitHub App alone.
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        super().__init__(settings.name)
        self._app, self._api = settings.app_id, api
        try:
            key = load_pem_private_key(settings.app_key.get_secret_value().encode(), None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, RSAPrivateKey):
            raise ConfigError(f"forges.{settings.name}.app_key is no RSA key in PEM: take the one that GitHub made")
        self._key = key

    def _make(self, owner: str, name: str) -> CloneToken:
        headers = {"Authorization": f"Bearer {self._jwt()}"}
        found = payload.as_object(self._api.get(f"{repo_path(owner, name)}/installation", headers=headers))
        number = found.get("id")
        if not isinstance(number, int):
            raise ForgeError(f"the GitHub App {self._app} is not installed for {owner}/{name}")
        wanted = {"repositories": [name], "permissions": {"contents": "read"}}
        answer = self._api.post(f"/app/installations/{number}/access_tokens", wanted, headers=headers)
        return self._read(answer, USERNAME)

    def _jwt(self) -> str:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        now = int(time.time())
        parts = {"alg": "RS256", "typ": "JWT"}, {"iat": now - _PAST, "exp": now + _FUTURE, "iss": self._app}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
