"""A real Gitea on a free loopback port, with an administrator and a token of theirs."""

import base64
import json
import os
import re
import secrets
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.services.process import Account, answers, free_port, hand_over, lend, private_dir, run, running, unprivileged
from tests.tools import find, require

ADMIN = "alba"
_START_SECONDS = 60
_CONFIG = """\
RUN_MODE = prod
WORK_PATH = {home}
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = {url}/
DISABLE_SSH = true
OFFLINE_MODE = true
{static}
[database]
DB_TYPE = sqlite3
PATH = {home}/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = {secret}
[repository]
ROOT = {home}/repos
[webhook]
ALLOWED_HOST_LIST = loopback
DELIVER_TIMEOUT = 10
[service]
DISABLE_REGISTRATION = true
[packages]
ENABLED = true
[log]
LEVEL = Warn
[cron]
ENABLED = false
[actions]
ENABLED = false
"""


class GiteaProcess:
    """The process behind a Gitea, which a test may stop and start again."""

    def __init__(self, run: Callable[[], AbstractContextManager[object]]) -> None:
        self._run = run
        self._running = ExitStack()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._running.enter_context(self._run())

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._running.close()


@dataclass(frozen=True, slots=True)
class GiteaServer:
    """A running Gitea. `token` has every scope of the administrator `ADMIN`."""

    url: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    process: GiteaProcess = field(repr=False)

    @property
    def host(self) -> str:
        """Host and port, where it is an OCI registry too."""
        return self.url.removeprefix("http://")

    def clone_url(self, owner: str, name: str) -> str:
        """An address that `git push` may use without asking for a password."""
        return f"http://{ADMIN}:{self.token}@{self.host}/{owner}/{name}.git"

    def person(self, login: str, scopes: Sequence[str] = ("all",)) -> str:
        """Make somebody who may do nothing yet; a token of theirs."""
        password = secrets.token_urlsafe(16)
        body = {"username": login, "password": password, "email": f"{login}@example.org", "must_change_password": False}
        self.api("POST", "/admin/users", body)
        basic = base64.b64encode(f"{login}:{password}".encode()).decode()
        made = self.api("POST", f"/users/{login}/tokens", {"name": "tests", "scopes": list(scopes)}, f"Basic {basic}")
        assert isinstance(made, dict)
        return str(made["sha1"])

    def replay(self, full_name: str, hook: int, delivery: str) -> None:
        """The button beside a delivery in the webhook's history; only the web pages have it."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        login = urllib.parse.urlencode({"user_name": ADMIN, "password": self.password, **self._csrf(opener)})
        headers = {"Origin": self.url}
        for path, form in (("/user/login", login), (f"/{full_name}/settings/hooks/{hook}/replay/{delivery}", "")):
            data = form or urllib.parse.urlencode(self._csrf(opener))
            request = urllib.request.Request(f"{self.url}{path}", method="POST", data=data.encode(), headers=headers)
            with opener.open(request, timeout=_START_SECONDS) as answer:
                assert "/user/login" not in answer.url, answer.url

    def _csrf(self, opener: urllib.request.OpenerDirector) -> dict[str, str]:
        """Gitea before 1.26 wants a mark of its own pages in each form."""
        with opener.open(f"{self.url}/user/login", timeout=_START_SECONDS) as answer:
            found = re.search(r'name="_csrf" value="([^"]+)"', answer.read().decode())
        return {"_csrf": found[1]} if found else {}

    def api(self, method: str, path: str, body: dict[str, object] | None = None, authorization: str = "") -> object:
        """Call `/api/v1{path}`, as the administrator by default. Raises urllib's HTTPError for 400 and above."""
        request = urllib.request.Request(
            f"{self.url}/api/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": authorization or f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_START_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def _static_root(home: Path, account: Account) -> str:
    share = Path(find("gitea")).resolve().parent.parent / "share/gitea"
    return f"STATIC_ROOT_PATH = {lend(share, home / 'share', account)}" if share.is_dir() else ""


def _write_config(home: Path, port: int, account: Account) -> Path:
    config = home / "app.ini"
    values = {"home": home, "port": port, "url": f"http://127.0.0.1:{port}", "static": _static_root(home, account)}
    config.write_text(_CONFIG.format(secret=secrets.token_hex(32), **values))
    hand_over(config, account)
    return config


@pytest.fixture(scope="session")
def gitea() -> Iterator[GiteaServer]:
    """One Gitea for the session: a test makes repos of its own, under names of its own."""
    require("gitea", "git")
    account = unprivileged()
    with private_dir("gitea", account) as home:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        config = _write_config(home, port, account)
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "USER": "nobody"}
        command = [str(lend(Path(find("gitea")), home, account)), "--config", str(config)]

        def admin(*arguments: str) -> str:
            return run([*command, "admin", "user", *arguments], account=account, env=env)

        def web() -> AbstractContextManager[object]:
            ready = answers(f"{url}/api/healthz")
            return running([*command, "web"], log=home / "log", ready=ready, account=account, env=env)

        process = GiteaProcess(web)
        process.start()
        try:
            password = secrets.token_urlsafe(16)
            admin("create", "--admin", f"--username={ADMIN}", f"--password={password}", f"--email={ADMIN}@example.org",
                  "--must-change-password=false")  # fmt: skip
            token = admin("generate-access-token", f"--username={ADMIN}", "--token-name=tests", "--scopes=all", "--raw")
            yield GiteaServer(url, password, token.strip(), process)
        finally:
            process.stop()
