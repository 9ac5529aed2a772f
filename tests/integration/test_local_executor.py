"""The local executor with real processes: what a runner may see, and that nothing of it is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from albatros.domain.states import Reason
from albatros.errors import ConfigError, ExecutorError
from albatros.executors import isolation
from albatros.executors.base import RunnerEnded, StartOrder
from albatros.executors.homes import Home, choose_home, choose_python
from albatros.executors.isolation import Isolation, IsolationKind
from albatros.executors.local import LocalExecutor
from albatros.runner.bundle import build_bundle
from albatros.settings import ExecutorSettings
from tests.support.fake_executor import EXITS, SLEEPS
from tests.support.runner import (
    FLAKES,
    attributes_of,
    build_order,
    copy_repo,
    evaluation_order,
    hostile_repo,
    result_of,
)
from tests.support.runner_server import TOKEN, RunnerServer
from tests.support.zipapps import OBEDIENT, open_directory, zipapp
from tests.tools import needs

SERVER_ID = "5e7f3a10"
ATTEMPT = str(uuid.uuid4())  # by which a runner is found on a machine where other test runs have theirs
SECRET = "the-servers-key-0123456789"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a runner as another user")
# Tells on stderr what it can read of the files that its token names, and of the server's process.
CURIOUS = """
import os, sys
paths = open(os.environ["ALBATROS_TOKEN_FILE"]).read().split(":")
parent = os.getppid()
for path in paths + [f"/proc/{parent}/environ", f"/proc/{parent}/root/etc/hostname"]:
    try:
        if os.path.isdir(path):
            found = os.listdir(path)
        else:
            with open(path) as file:
                found = file.read()
        print("READ", path, repr(found)[:200], file=sys.stderr)
    except OSError as error:
        print("refused", path, error.strerror, file=sys.stderr)
print("argv", open("/proc/self/cmdline").read(), file=sys.stderr)
print("environment", sorted(os.environ), file=sys.stderr)
print("groups", os.getuid(), os.getgid(), os.getgroups(), file=sys.stderr)
"""
# Starts a child in a session of its own, as Nix does with builders; the number tells test runs apart.
CHILD = f"import time; time.sleep(7777)  # {os.getpid()}"
PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True)
time.sleep(7777)
"""


@pytest.fixture
def data() -> Iterator[Path]:
    with open_directory() as directory:
        path = directory / "data"
        path.mkdir()
        for folder in ("keys", "blobs"):
            (path / folder).mkdir()
            (path / folder / "key").write_text(SECRET)
        (path / "albatros.sqlite3").write_text(SECRET)
        yield path


def start(executor: LocalExecutor, token: str = SLEEPS) -> int:
    return int(executor.start(StartOrder(ATTEMPT, token, "http://127.0.0.1:1")))


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def ended(how: str) -> str:
    return f"its runner ended ({how}) without a report"


def end_of(executor: LocalExecutor) -> RunnerEnded:
    while not (found := executor.poll({})):
        time.sleep(0.02)
    assert isinstance(found[0], RunnerEnded)
    return found[0]


def test_a_runner_reads_neither_database_nor_keys_nor_store(data: Path) -> None:
    executor = LocalExecutor(SERVER_ID, ExecutorSettings(), data, zipapp(CURIOUS))
    if not executor.takes_strangers:
        pytest.skip(f"needs bwrap (apt-get install bubblewrap): {executor.isolation.reason}")
    private = ["keys", "keys/key", "blobs", "blobs/key", "albatros.sqlite3", "attempts", ""]
    start(executor, ":".join(str(data / name) for name in private))
    told = end_of(executor).detail
    assert SECRET not in told
    for name in private[:-1]:
        assert f"refused {data / name} " in told
    assert "ALBATROS_TOKEN_FILE" in told
    argv = told.partition("argv ")[2].partition("\nenvironment")[0]
    assert str(data / "keys") not in argv
    if executor.isolation.kind is IsolationKind.OTHER_USER:
        assert told.count("refused") == len(private) + 2
        assert f"groups {executor.isolation.uid} {executor.isolation.gid} []" in told


@needs("bwrap")
def test_bubblewrap_hides_the_data_and_the_servers_process(data: Path, tmp_path: Path) -> None:
    home = data / "runner"
    home.mkdir()
    config = tmp_path / "albatros.toml"
    config.write_text(SECRET)
    paths = f"{data}/keys/key:{data}/keys:{config}:/proc/{os.getpid()}/environ"
    token = home / "token"
    token.write_text(paths)
    confined = Isolation(IsolationKind.BWRAP, os.geteuid(), os.getegid(), "")
    command = confined.start([sys.executable, "-c", CURIOUS], hidden=[data, config], shown=[home]).argv
    environment = {"ALBATROS_TOKEN_FILE": str(token), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert SECRET not in done.stderr
    assert f"refused {data}/keys/key" in done.stderr
    assert f"refused {config}" in done.stderr
    assert f"refused /proc/{os.getpid()}/environ" in done.stderr


def test_killing_a_runner_takes_its_whole_tree(data: Path) -> None:
    executor = LocalExecutor(SERVER_ID, ExecutorSettings(), data, zipapp(PARENT))
    start(executor)
    wait_for(lambda: len(sleepers()) == 1)
    executor.stop(ATTEMPT, kill=True)
    wait_for(lambda: sleepers() == [])
    assert end_of(executor).attempt_id == ATTEMPT


def sleepers() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if CHILD.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_nothing_of_an_attempt_is_left(data: Path) -> None:
    executor = LocalExecutor(SERVER_ID, ExecutorSettings(), data, zipapp(OBEDIENT))
    start(executor, EXITS)
    end_of(executor)
    assert list((data / "attempts").iterdir()) == []
    assert list((data / "runner" / "home" / "work").iterdir()) == []


def test_the_data_directory_is_closed_but_can_be_passed_through(data: Path) -> None:
    LocalExecutor(SERVER_ID, ExecutorSettings(), data, b"")
    assert data.stat().st_mode & 0o777 == 0o711
    for name in ("keys", "blobs", "attempts"):
        assert (data / name).stat().st_mode & 0o777 == 0o700
    assert (data / "albatros.sqlite3").stat().st_mode & 0o777 == 0o600
    assert (data / "runner" / "home").stat().st_mode & 0o777 == 0o700


def test_a_runner_that_was_started_and_not_recorded_is_found(data: Path) -> None:
    first = LocalExecutor(SERVER_ID, ExecutorSettings(), data, zipapp(OBEDIENT))
    pid = start(first)
    (data / "attempts" / ATTEMPT / "runner.json").unlink()
    second = LocalExecutor(SERVER_ID, ExecutorSettings(), data, zipapp(OBEDIENT))
    assert second.alive() == {ATTEMPT}
    assert start(second) == pid
    second.stop(ATTEMPT, kill=True)
    end_of(first)


def test_a_runner_that_ended_while_no_server_ran_is_told(data: Path) -> None:
    first = LocalExecutor(SERVER_ID, ExecutorSettings(), data, zipapp(OBEDIENT))
    pid = start(first)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: first.alive() == frozenset())
    second = LocalExecutor(SERVER_ID, ExecutorSettings(), data, zipapp(OBEDIENT))
    assert second.alive() == frozenset()
    assert second.poll({}) == [RunnerEnded(ATTEMPT, Reason.NODE_LOST, ended("nobody saw how"))]
    assert second.poll({}) == []
    assert not (data / "attempts" / ATTEMPT).exists()


def test_a_record_of_another_process_with_the_same_number_is_not_believed(data: Path) -> None:
    LocalExecutor(SERVER_ID, ExecutorSettings(), data, b"")
    folder = data / "attempts" / ATTEMPT
    folder.mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (folder / "runner.json").write_text(json.dumps({"pid": os.getpid(), "start_ticks": 1, "boot": boot}))
    executor = LocalExecutor(SERVER_ID, ExecutorSettings(), data, b"")
    assert executor.alive() == frozenset()
    assert [end.attempt_id for end in executor.poll({})] == [ATTEMPT]


def test_an_attempt_that_never_started_leaves_nothing(data: Path) -> None:
    LocalExecutor(SERVER_ID, ExecutorSettings(), data, b"")
    (data / "attempts" / ATTEMPT).mkdir()
    executor = LocalExecutor(SERVER_ID, ExecutorSettings(), data, b"")
    assert executor.poll({}) == []
    assert not (data / "attempts" / ATTEMPT).exists()


@as_root
def test_a_home_that_the_runner_cannot_reach_is_put_elsewhere(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    runner = Isolation(IsolationKind.OTHER_USER, 64198, 64198, "")
    home = choose_home(closed, runner)
    assert home.base.parent == Path("/var/tmp")
    assert home == choose_home(closed, runner)
    try:
        home.prepare(zipapp(OBEDIENT))
        assert home.home.stat().st_uid == 64198
        os.chown(home.base, 64198, 64198)
        with pytest.raises(ExecutorError, match="belongs to somebody else"):
            home.prepare(zipapp(OBEDIENT))
    finally:
        shutil.rmtree(home.base)


@as_root
def test_a_python_is_found_that_the_runner_can_execute(data: Path) -> None:
    runner = Isolation(IsolationKind.OTHER_USER, 64198, 64198, "")
    python = choose_python(Home(data / "runner", runner))
    done = subprocess.run([python, "-c", "import os; print(os.getuid())"], user=64198, capture_output=True, check=True)
    assert done.stdout == b"64198\n"


@as_root
@pytest.mark.parametrize(
    ("user", "words"), [("root", "must not be root"), ("0", "must not be root"), ("no-such-user", "does not exist")]
)
def test_a_user_that_cannot_be_the_runner_is_refused(user: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        isolation.decide(user)


@as_root
def test_a_number_names_a_user_who_has_no_entry() -> None:
    decided = isolation.decide("61234")
    assert (decided.kind, decided.uid, decided.gid) == (IsolationKind.OTHER_USER, 61234, 61234)


def test_a_server_that_is_not_root_and_has_no_bubblewrap_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("PATH", "/nowhere")
    decided = isolation.decide("")
    assert (decided.kind, decided.isolated) == (IsolationKind.NONE, False)
    assert "bwrap is not on PATH" in decided.reason
    with pytest.raises(ConfigError, match="needs a server that runs as root"):
        isolation.decide("somebody-else")


@needs("nix", "git")
def test_the_real_runner_builds_as_the_other_user_in_a_store_of_its_own(data: Path) -> None:
    executor = LocalExecutor(SERVER_ID, ExecutorSettings(), data, build_bundle().data)
    repo = data.parent / "repo"
    commit = copy_repo(repo, FLAKES / "mixed")
    found = attributes_of(run(executor, evaluation_order(repo, commit)))["packages.x86_64-linux.dependent"]
    order = build_order(repo, commit, "packages.x86_64-linux.dependent", str(found["drv_path"]))
    server = run(executor, order)
    assert b"dependent on good\n" in server.blobs.values()
    store = data / "runner" / "home" / "nix-root" / "nix" / "store"
    assert {path.stat().st_uid for path in store.glob("*-dependent")} == {executor.isolation.uid}


@needs("nix", "git")
@pytest.mark.parametrize("name", ["path-input", "read-file", "builder"])
def test_a_hostile_flake_gets_nothing_of_the_server(data: Path, name: str) -> None:
    executor = LocalExecutor(SERVER_ID, ExecutorSettings(), data, build_bundle().data)
    repo = data.parent / "repo"
    commit = hostile_repo(repo, name, data / "keys" / "key")
    server = run(executor, evaluation_order(repo, commit))
    result = result_of(server)
    if name == "builder":
        drv_path = str(attributes_of(server)["packages.x86_64-linux.stolen"]["drv_path"])
        server = run(executor, build_order(repo, commit, "packages.x86_64-linux.stolen", drv_path))
        assert result_of(server)["outcome"] == "succeeded"
    told = server.log + str(result) + str(server.result) + "".join(map(str, server.blobs.values()))
    assert SECRET not in told
    for path in (data / "runner").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET.encode() not in path.read_bytes(), path


def run(executor: LocalExecutor, order: dict[str, object]) -> RunnerServer:
    server = RunnerServer(order)
    try:
        executor.start(StartOrder(ATTEMPT, TOKEN, server.url))
        end = end_of(executor)
    finally:
        server.close()
    assert end == RunnerEnded(ATTEMPT, Reason.NODE_LOST, ended("exit code 0"))
    return server
