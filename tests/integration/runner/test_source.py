"""Cloning with real git: credentials, submodules, LFS, and servers that give no commit by its id."""

import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

from albatros.runner.children import Children
from albatros.runner.logstream import LogStream
from albatros.runner.order import parse_order
from albatros.runner.protocol import Server
from albatros.runner.source import Git
from albatros.runner.work import Work
from tests.support.runner import (
    attributes_of,
    commit_all,
    evaluation_order,
    git,
    make_repo,
    result_of,
    run_order,
)
from tests.tools import needs

pytestmark = needs("nix", "git")
PASSWORD = "a-password-0123456789"
FLAKE = """{ outputs = { self }: { packages.x86_64-linux.it = derivation {
  name = "it"; system = "x86_64-linux"; builder = "/bin/sh"; seen = builtins.readFile (self + "/FILE"); }; }; }"""


class GitServer:
    """A bare repo behind `git http-backend` and a password."""

    def __init__(self, root: Path) -> None:
        self.root, self.refused = root, 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.serve(self)

            do_POST = do_GET  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        wanted = "Basic " + base64.b64encode(f"alba:{PASSWORD}".encode()).decode()
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.headers.get("Authorization") != wanted:
            self.refused += 1
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.end_headers()
            return
        path, _, query = request.path.partition("?")
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type") or "",
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": request.headers.get("Git-Protocol") or "",
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        request.send_response(200)
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name != "Status":
                request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    server = GitServer(tmp_path / "served")
    yield server
    server.http.shutdown()
    server.http.server_close()


def flake(file: str) -> str:
    return FLAKE.replace("FILE", file)


def test_a_private_repo_is_cloned_with_its_password_and_the_log_does_not_show_it(
    tmp_path: Path, git_server: GitServer
) -> None:
    make_repo(tmp_path / "repo", {"flake.nix": flake("word"), "word": "x"})
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "repo"), str(git_server.root / "hello.git"))
    commit = git(tmp_path / "repo", "rev-parse", "HEAD")
    order = evaluation_order(tmp_path / "repo", commit)
    cast("dict[str, object]", order["repo"]).update(
        clone_url=f"{git_server.url}/hello.git", username="alba", password=PASSWORD
    )
    server = run_order(tmp_path / "home", order)
    assert attributes_of(server)
    assert PASSWORD not in server.log + str(server.result)
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("credential-"):
            assert PASSWORD.encode() not in path.read_bytes(), path
    (credential,) = (tmp_path / "home").glob("work-*/credential-*")
    assert credential.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("alone", [False, True])
def test_a_strangers_commit_reaches_no_other_repo_of_the_host(
    tmp_path: Path, git_server: GitServer, alone: bool
) -> None:
    """The credential of a forge's API may read more repos than the one that somebody approved a commit of."""
    make_repo(tmp_path / "keys", {"word": "a secret"})
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "keys"), str(git_server.root / "keys.git"))
    make_repo(tmp_path / "repo", {"flake.nix": flake("sub/word")})
    git(tmp_path / "repo", "submodule", "--quiet", "add", f"file://{tmp_path}/keys", "sub")
    modules = tmp_path / "repo" / ".gitmodules"
    modules.write_text('[submodule "sub"]\n\tpath = sub\n\turl = ../keys.git\n')
    commit = commit_all(tmp_path / "repo")
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "repo"), str(git_server.root / "hello.git"))
    order = evaluation_order(tmp_path / "repo", commit)
    cast("dict[str, object]", order["repo"]).update(
        clone_url=f"{git_server.url}/hello.git", username="alba", password=PASSWORD, repo_alone=alone, submodules=True
    )
    server = run_order(tmp_path / "home", order)
    if alone:
        assert result_of(server)["reason"] == "driver"
        assert "keys.git" in str(result_of(server)["message"])
        assert "a secret" not in server.log
    else:
        assert b"a secret" in derivation(tmp_path, attributes_of(server)["packages.x86_64-linux.it"])


def test_a_credential_for_a_repo_alone_is_for_what_lies_below_its_address(tmp_path: Path) -> None:
    order = evaluation_order(tmp_path, "c" * 40)
    cast("dict[str, object]", order["repo"]).update(
        clone_url="https://git.example.org/alba/hello.git", username="alba", password=PASSWORD, repo_alone=True
    )
    work = Work(parse_order(order), str(tmp_path), *cast("tuple[LogStream, Children, Server]", (None,) * 3), "")
    config = Git(work).environment["GIT_CONFIG_GLOBAL"]
    for path in ("alba/hello.git", "alba/hello.git/info/lfs"):
        assert filled(config, "https", "git.example.org", path) == PASSWORD
    for path in ("", "alba/hello", "alba/hello.git2", "alba/keys.git", "alba/hello.git/../keys.git"):
        assert filled(config, "https", "git.example.org", path) == "", path


def test_a_wrong_password_is_an_error_and_no_question(tmp_path: Path, git_server: GitServer) -> None:
    make_repo(tmp_path / "repo", {"flake.nix": flake("word"), "word": "x"})
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "repo"), str(git_server.root / "hello.git"))
    order = evaluation_order(tmp_path / "repo", git(tmp_path / "repo", "rev-parse", "HEAD"))
    cast("dict[str, object]", order["repo"]).update(
        clone_url=f"{git_server.url}/hello.git", username="alba", password="wrong-" + PASSWORD
    )
    server = run_order(tmp_path / "home", order)
    assert result_of(server)["reason"] == "driver"
    assert "Authentication failed" in str(result_of(server)["message"])
    assert PASSWORD not in server.log + str(server.result)


def test_an_older_commit_of_the_ref_is_fetched(tmp_path: Path) -> None:
    commit = make_repo(tmp_path / "repo", {"flake.nix": flake("word"), "word": "x"})
    (tmp_path / "repo" / "word").write_text("newer")
    commit_all(tmp_path / "repo")
    git(tmp_path / "repo", "config", "protocol.version", "0")
    assert attributes_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit)))


def test_a_commit_that_is_gone_is_named(tmp_path: Path) -> None:
    make_repo(tmp_path / "repo", {"flake.nix": flake("word"), "word": "x"})
    result = result_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", "0123456789" * 4)))
    assert result["reason"] == "evaluation_failed"
    assert f"Commit {'0123456789' * 4} is no longer in alba/hello" in str(result["message"])


def test_hooks_and_filters_of_the_repo_do_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    files = {"flake.nix": flake("word"), "word": "x", ".gitattributes": "* filter=evil\n"}
    make_repo(tmp_path / "repo", files)
    hooks = tmp_path / "repo" / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {witness}\n")
    (hooks / "post-checkout").chmod(0o755)
    (tmp_path / "repo" / ".gitconfig").write_text(f'[filter "evil"]\n\tsmudge = touch {witness}\n')
    commit = commit_all(tmp_path / "repo")
    order = evaluation_order(tmp_path / "repo", commit)
    cast("dict[str, object]", order["repo"])["submodules"] = True
    assert attributes_of(run_order(tmp_path / "home", order))
    assert not witness.exists()


@pytest.mark.parametrize("relative", [False, True])
def test_submodules_are_part_of_the_flake_when_asked_for(tmp_path: Path, relative: bool) -> None:
    make_repo(tmp_path / "inner", {"word": "from the inner submodule"})
    make_repo(tmp_path / "middle", {"word": "from the submodule"})
    git(
        tmp_path / "middle",
        "submodule",
        "--quiet",
        "add",
        "../inner" if relative else f"file://{tmp_path}/inner",
        "deep",
    )
    commit_all(tmp_path / "middle")
    make_repo(tmp_path / "repo", {"flake.nix": flake("sub/deep/word")})
    git(tmp_path / "repo", "remote", "add", "origin", f"file://{tmp_path}/repo")
    url = "../middle" if relative else f"file://{tmp_path}/middle"
    git(tmp_path / "repo", "submodule", "--quiet", "add", url, "sub")
    commit = commit_all(tmp_path / "repo")
    order = evaluation_order(tmp_path / "repo", commit)
    without = attributes_of(run_order(tmp_path / "home", order))["packages.x86_64-linux.it"]
    assert without["drv_path"] is None
    cast("dict[str, object]", order["repo"])["submodules"] = True
    found = attributes_of(run_order(tmp_path / "home", order))["packages.x86_64-linux.it"]
    assert b"from the inner submodule" in derivation(tmp_path, found)


def test_a_submodule_cannot_use_another_transport(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    make_repo(tmp_path / "repo", {"flake.nix": flake("word"), "word": "x"})
    make_repo(tmp_path / "inner", {"word": "y"})
    git(tmp_path / "repo", "submodule", "--quiet", "add", f"file://{tmp_path}/inner", "sub")
    modules = tmp_path / "repo" / ".gitmodules"
    modules.write_text(f'[submodule "sub"]\n\tpath = sub\n\turl = ext::touch {witness}\n')
    order = evaluation_order(tmp_path / "repo", commit_all(tmp_path / "repo"))
    cast("dict[str, object]", order["repo"])["submodules"] = True
    result = result_of(run_order(tmp_path / "home", order))
    assert result["reason"] == "driver"
    assert "transport 'ext' not allowed" in str(result["message"])
    assert not witness.exists()


@needs("git-lfs")
def test_lfs_objects_are_part_of_the_flake_when_asked_for(tmp_path: Path) -> None:
    make_repo(tmp_path / "repo", {"flake.nix": flake("large")})
    git(tmp_path / "repo", "lfs", "install", "--local")
    (tmp_path / "repo" / ".gitattributes").write_text("large filter=lfs diff=lfs merge=lfs -text\n")
    (tmp_path / "repo" / "large").write_text("the large content")
    commit = commit_all(tmp_path / "repo")
    bare = tmp_path / "served.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "repo"), str(bare))
    shutil.copytree(tmp_path / "repo" / ".git" / "lfs", bare / "lfs")
    order = evaluation_order(bare, commit)
    pointer = attributes_of(run_order(tmp_path / "home", order))["packages.x86_64-linux.it"]
    assert b"git-lfs.github.com" in derivation(tmp_path, pointer)
    cast("dict[str, object]", order["repo"])["lfs"] = True
    found = attributes_of(run_order(tmp_path / "home2", order))["packages.x86_64-linux.it"]
    assert b"the large content" in derivation(tmp_path, found, "home2")


def derivation(tmp_path: Path, attribute: dict[str, object], home: str = "home") -> bytes:
    """The bytes of an attribute's .drv file."""
    assert attribute["drv_path"] is not None, attribute
    return Path(f"{tmp_path}/{home}/nix-root{attribute['drv_path']}").read_bytes()


def test_a_token_of_another_host_is_given_to_that_host_alone(tmp_path: Path) -> None:
    order = evaluation_order(tmp_path, "c" * 40)
    order["access_tokens"] = {"git.example.org": "PAT:token-of-git", "other.example.org:3000": "token-of-other"}
    work = Work(parse_order(order), str(tmp_path), *cast("tuple[LogStream, Children, Server]", (None,) * 3), "")
    config = Git(work).environment["GIT_CONFIG_GLOBAL"]
    assert "token-of" not in Path(config).read_text()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("credential-*")} == {0o600}
    assert filled(config, "https", "git.example.org") == "token-of-git"
    assert filled(config, "https", "other.example.org:3000") == "token-of-other"
    assert filled(config, "http", "git.example.org") == ""
    assert filled(config, "https", "other.example.org") == ""
    assert filled(config, "https", "evil.git.example.org") == ""


def filled(config: str, protocol: str, host: str, path: str = "") -> str:
    """The password that git finds for a path on a host."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": config, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    asked = f"protocol={protocol}\nhost={host}\n" + (f"path={path}\n\n" if path else "\n")
    done = subprocess.run(
        ["git", "credential", "fill"], env=environment, input=asked, capture_output=True, text=True, check=False
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines()).get("password", "")
