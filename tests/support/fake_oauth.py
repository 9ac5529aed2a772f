"""A forge that people log in with: the endpoints of Gitea, GitLab and GitHub that a login needs, strict as theirs are.

A code is good once, for the client, redirect URI and PKCE verifier that it was given for.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT_ID = "an-application"
CLIENT_SECRET = "the-secret-of-the-application"


@dataclass
class FakeOAuth:
    """The server's state, which tests change as they like."""

    url: str = ""
    login: str = "ines"
    subject: int = 7
    """Who is logged in at the forge."""
    claims: dict[str, object] = field(default_factory=dict)
    """Put over those of the ID token."""
    answer: tuple[int, bytes] | None = None
    """What the token endpoint answers instead."""
    person: dict[str, object] | None = None
    """What the user's endpoint answers instead."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def approve(self, address: str) -> str:
        """What the person does in the browser: the address that it comes back to."""
        assert address.startswith(self.url)
        asked = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert len(asked["state"]) >= 32
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def route(self, method: str, path: str, form: dict[str, str], authorization: str) -> tuple[int, object]:
        if method == "POST" and path in {"/login/oauth/access_token", "/oauth/token"}:
            return self._token(form)
        if method == "GET" and path in {"/login/oauth/userinfo", "/oauth/userinfo", "/api/v3/user"}:
            if authorization.removeprefix("Bearer ") not in self.tokens:
                return 401, {"message": "no valid authorization"}
            return 200, self.person or self._person(path)
        return 404, {"message": "not found"}

    def _person(self, path: str) -> dict[str, object]:
        if path.startswith("/api/v3"):
            return {"id": self.subject, "login": self.login}
        return {"sub": str(self.subject), "preferred_username": self.login, "nickname": self.login}

    def _token(self, form: dict[str, str]) -> tuple[int, object]:
        if (form["client_id"], form["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return 400, {"error": "unauthorized_client", "error_description": "invalid client secret"}
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or asked["redirect_uri"] != form["redirect_uri"] or asked["code_challenge"] != challenge:
            return 400, {"error": "unauthorized_client", "error_description": "client is not authorized"}
        token = secrets.token_urlsafe(16)
        self.tokens.add(token)
        granted: dict[str, object] = {"access_token": token, "token_type": "bearer", "expires_in": 3600}
        if "openid" in asked.get("scope", ""):
            granted["id_token"] = self._id_token(asked.get("nonce", ""))
        return 200, granted

    def _id_token(self, nonce: str) -> str:
        claims = {
            "iss": self.url, "aud": [CLIENT_ID], "exp": int(time.time()) + 60, "sub": str(self.subject), "nonce": nonce,
            **self.claims,
        }  # fmt: skip
        parts = (json.dumps(part).encode() for part in ({"alg": "RS256"}, claims))
        return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmVk"])


@contextmanager
def fake_oauth() -> Iterator[FakeOAuth]:
    """Serve a fake on a free loopback port."""
    state = FakeOAuth()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # header and body in one packet, or each call waits for a delayed acknowledgement

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            form = {key: values[0] for key, values in parse_qs(body).items()}
            state.calls.append(f"{self.command} {self.path}")
            if self.path.startswith(("/login/oauth/authorize?", "/oauth/authorize?")):
                self.send_response(302)
                self.send_header("Location", state.approve(state.url + self.path))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, value = state.route(self.command, self.path, form, self.headers.get("Authorization", ""))
            data = json.dumps(value).encode()
            if state.answer is not None and self.command == "POST":
                status, data = state.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _serve  # noqa: N815 - the base class names them

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
