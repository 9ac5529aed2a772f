"""Bad webhooks against the real server process: a clear answer each, and nothing written but a counted refusal."""

import hashlib
import hmac
import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.bare_repo import BareRepo
from tests.support.flakes import HOST_SYSTEM, derivation, flake
from tests.support.line import OWNER, Line, make_line
from tests.support.server_process import eventually
from tests.tools import ROOT, needs

pytestmark = needs("nix", "git")
LIMIT = 10_000
FILES = {"flake.nix": flake({f"packages.{HOST_SYSTEM}.x": derivation("x", "echo > $out")})}
TABLES = ("repos", "deliveries", "builds", "jobs", "ref_heads", "status_reports")


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with make_line(None, {"limits": {"webhook_bytes": LIMIT}}) as own:
        own.server.start()
        yield own


@dataclass
class Delivery:
    """A webhook as the hook sends it, before a test spoils it."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    path: str = "/webhooks/home"

    def sign(self, line: Line) -> "Delivery":
        digest = hmac.new(line.secret.encode(), self.body, hashlib.sha256).hexdigest()
        self.headers = {
            "Content-Type": "application/json",
            "X-Albatros-Event": "push",
            "X-Albatros-Delivery": str(uuid.uuid4()),
            "X-Albatros-Signature": f"sha256={digest}",
            **self.headers,
        }
        return self

    def send(self, line: Line) -> tuple[int, dict[str, object]]:
        request = urllib.request.Request(line.server.url + self.path, self.body, self.headers, method="POST")
        return line.server.send(request)


def push_of(repo: str, commit: str, *, ref: str = "refs/heads/main", before: str = "0" * 40) -> Delivery:
    return Delivery(json.dumps({"repo": repo, "refs": [{"ref": ref, "before": before, "after": commit}]}).encode())


def rows(line: Line) -> list[tuple[object, ...]]:
    return [line.sql(f"SELECT count(*) FROM {table}")[0] for table in TABLES]


def refusals(line: Line) -> int:
    found = line.sql("SELECT value FROM counters WHERE name = 'webhooks_refused.home'")
    return int(str(found[0][0])) if found else 0


@pytest.mark.parametrize("signature", ["", "sha256=", f"sha256={'0' * 64}", "sha256=é", "nonsense"])
def test_what_is_not_signed_is_refused_and_counted(line: Line, signature: str) -> None:
    before, counted = rows(line), refusals(line)
    delivery = push_of(f"{OWNER}/unsigned", "1" * 40).sign(line)
    delivery.headers["X-Albatros-Signature"] = signature.encode().decode("latin-1")
    status, problem = delivery.send(line)
    assert status == 401
    assert problem["title"] == "Not authorized"
    eventually(lambda: refusals(line) == counted + 1, lambda: line.server.log)
    assert rows(line) == before


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b"null", b'{"repo": 1}', b"[" * 5000, b'{"repo":"alba/../x"}'])
def test_what_cannot_be_read_is_refused(line: Line, body: bytes) -> None:
    before = rows(line)
    status, problem = Delivery(body).sign(line).send(line)
    assert status == 400
    assert problem["detail"]
    assert rows(line) == before


def test_a_body_over_the_limit_is_refused(line: Line) -> None:
    before = rows(line)
    status, problem = Delivery(b" " * (LIMIT + 1)).sign(line).send(line)
    assert status == 413
    assert f"{LIMIT} bytes (limits.webhook_bytes)" in str(problem["detail"])
    assert rows(line) == before


def test_an_unknown_forge_is_not_found(line: Line) -> None:
    delivery = push_of(f"{OWNER}/x", "1" * 40).sign(line)
    delivery.path = "/webhooks/nobody"
    status, problem = delivery.send(line)
    assert status == 404
    assert "[[forges]]" in str(problem["detail"])


def test_the_same_delivery_again_is_answered_with_the_first_builds(line: Line) -> None:
    repo = line.repo("again")
    commit = repo.commit(FILES)
    subprocess.run(["git", "push", "-q", repo.bare, "HEAD:refs/heads/other"], cwd=repo.work, check=True)
    line.wait_green(repo, commit)
    delivery = push_of(repo.full_name, commit, ref="refs/heads/main").sign(line)
    subprocess.run(["git", "update-ref", "refs/heads/main", commit], cwd=repo.bare, check=True)
    first, answer = delivery.send(line)
    again, repeated = delivery.send(line)
    assert (first, again) == (202, 200)
    assert answer == repeated
    builds = answer["builds"]
    assert isinstance(builds, list)
    assert len(builds) == 1
    assert line.sql(f"SELECT count(*) FROM builds WHERE \"commit\" = '{commit}'") == [(2,)]


def test_a_deleted_branch_is_recorded_and_builds_nothing(line: Line) -> None:
    repo = line.repo("deleted")
    commit = repo.commit(FILES)
    repo.push("HEAD:refs/heads/gone")
    line.wait_green(repo, commit)
    said = repo.push(":refs/heads/gone")
    assert "no build: " in said
    assert line.sql("SELECT \"commit\" FROM ref_heads WHERE ref = 'refs/heads/gone'") == [(None,)]
    (reason,) = line.sql("SELECT reason FROM deliveries ORDER BY id DESC LIMIT 1")[0]
    assert "gone" in str(reason)
    assert line.sql("SELECT count(*) FROM builds WHERE ref = 'refs/heads/gone'") == [(1,)]


def test_a_repo_that_may_not_build_is_recorded_with_the_reason(line: Line) -> None:
    repo = BareRepo(line.paths.git, "stranger/hello", f"{line.server.url}/webhooks/home", line.paths.secret)
    repo.commit(FILES)
    said = repo.push()
    assert "no build: " in said
    assert "albatros repo add" in said
    (reason,) = line.sql("SELECT reason FROM deliveries ORDER BY id DESC LIMIT 1")[0]
    assert "albatros repo add" in str(reason)
    assert line.sql("SELECT count(*) FROM builds JOIN repos ON repos.id = repo_id WHERE owner = 'stranger'") == [(0,)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ('[sever]\nlisten = "127.0.0.1:0"\n', "server"),
        ('[server]\nlissten = "127.0.0.1:0"\n', "listen"),
        ("[executor]\nslot = 3\n", "slots"),
    ],
)
def test_an_unknown_key_of_the_config_is_refused_with_the_nearest(line: Line, wrong: str, says: str) -> None:
    config = line.paths.root / "wrong.toml"
    config.write_text(wrong)
    command = [sys.executable, "-m", "albatros", "serve", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"'{says}'" in done.stderr or says in done.stderr.split()
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
