"""Scripts with the real runner: what they are told, what logs show of their secrets, and what hostile ones can do."""

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import cast

import pytest

from tests.support.runner import RunnerProcess, commit_all, evaluation_order, make_repo, result_of, run_order
from tests.support.runner_server import TOKEN, RunnerServer
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git")
KEY = '-----BEGIN KEY-----\nc2VjcmV0LWxpbmUtb25l\nit\'s `not` $run "as" code\n-----END KEY-----'
SECRETS = {"DEPLOY_KEY": KEY, "WORD": "plain-word-0123456789"}
FLAKE = """{ outputs = { self }: { packages.x86_64-linux.it = derivation {
  name = "it"; system = "x86_64-linux"; builder = "/bin/sh"; }; }; }"""


def script_repo(directory: Path, text: str, **files: str) -> str:
    """Commit an executable `.albatros` beside other files; the commit's id."""
    make_repo(directory, {".albatros": text, **files})
    (directory / ".albatros").chmod(0o755)
    return commit_all(directory)


def script_order(repo: Path, commit: str, secrets: dict[str, str] | None = None, **limits: int) -> dict[str, object]:
    script = {"repo_url": "https://git.example.org/alba/hello.git", "branch": "main", "tag": "", "flavor": "nightly"}
    order = evaluation_order(repo, commit, **limits)
    return {**order, "kind": "script", "script": {**script, "secrets": secrets or {}}}


def run_script(tmp_path: Path, text: str, secrets: dict[str, str] | None = None, **limits: int) -> RunnerServer:
    commit = script_repo(tmp_path / "repo", text)
    return run_order(tmp_path / "home", script_order(tmp_path / "repo", commit, secrets, **limits))


def processes_of(uid: int) -> list[str]:
    done = subprocess.run(["ps", "-o", "pid=", "-u", str(uid)], capture_output=True, text=True, check=False)
    return done.stdout.split()


def commands() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def failed(server: RunnerServer, reason: str) -> str:
    """The message of a result that has to be a failure for this reason."""
    result = result_of(server)
    assert (result["outcome"], result["reason"]) == ("failed", reason), result
    return cast("str", result["message"])


def test_a_script_is_told_what_it_runs_for(tmp_path: Path) -> None:
    text = """#!/bin/sh
echo "$REPO_URL $COMMIT $BRANCH/${TAG-none} $FLAVOR"; echo on stderr >&2
test -f .albatros && test "$(git rev-parse HEAD)" = "$COMMIT" && echo in the clone
nix --version; env | cut -d= -f1 | sort | tr '\\n' ' '
"""
    server = run_script(tmp_path, text)
    assert result_of(server)["outcome"] == "succeeded", server.log
    commit = cast("dict[str, str]", server.order["repo"])["commit"]
    assert f"https://git.example.org/alba/hello.git {commit} main/none nightly\n" in server.log
    for words in ("on stderr\n", "in the clone\n", "nix (Nix)"):
        assert words in server.log
    names = next(line for line in server.log.splitlines() if "REPO_URL" in line and "COMMIT" in line).split()
    assert "TOKEN" not in " ".join(names)
    assert {"ALBATROS_SECRETS", "BRANCH", "HOME", "PATH"} <= set(names)
    assert TOKEN not in server.log


def test_secrets_are_a_file_that_shells_read_and_no_log_shows(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    text = f"""#!/bin/sh -eu
test "$(stat -c %a "$ALBATROS_SECRETS")" = 600
if env | grep -q plain-word; then echo "in the environment"; exit 9; fi
. "$ALBATROS_SECRETS"
printf %s "$DEPLOY_KEY" > {shlex.quote(str(seen))}
echo "word: $WORD"; printf 'cut: plain-wo'; sleep 0.5; echo 'rd-0123456789'
printf %s "$WORD" | base64; printf %s "$DEPLOY_KEY" | base64 -w 20
echo "$DEPLOY_KEY" | sed -n 2p
exit 3
"""
    server = run_script(tmp_path, text, SECRETS)
    message = failed(server, "build_failed")
    assert seen.read_text() == KEY
    assert message.startswith(".albatros ended with exit status 3.")
    assert server.log.count("***") >= 5
    told = server.log + json.dumps(server.result)
    for hidden in ("plain-word-0123456789", "c2VjcmV0LWxpbmUtb25l", "BEGIN KEY", "cGxhaW4td29yZC0wMTIzNDU2Nzg5"):
        assert hidden not in told


@pytest.mark.parametrize("kind", ["link", "plain", "directory", "missing"])
def test_only_a_plain_file_that_may_be_executed_is_a_script(tmp_path: Path, kind: str) -> None:
    repo = tmp_path / "repo"
    make_repo(repo, {"flake.nix": FLAKE})
    path = repo / ".albatros"
    if kind == "link":
        path.symlink_to("/bin/true")
    elif kind == "plain":
        path.write_text("#!/bin/sh\n")
    elif kind == "directory":
        path.mkdir()
        (path / "x").write_text("x")
        (path / "x").chmod(0o755)
    commit = commit_all(repo)
    evaluated = result_of(run_order(tmp_path / "home", evaluation_order(repo, commit)))
    assert cast("dict[str, object]", evaluated["evaluation"])["script"] is False
    failed(run_order(tmp_path / "home", script_order(repo, commit)), "build_failed")


def test_an_evaluation_reports_a_script_with_and_without_a_flake(tmp_path: Path) -> None:
    for number, files in enumerate(({}, {"flake.nix": FLAKE}, {"flake.nix": "{ outputs = _: { }; }"})):
        repo = tmp_path / f"repo-{number}"
        commit = script_repo(repo, "#!/bin/sh\n", **files)
        result = result_of(run_order(tmp_path / "home", evaluation_order(repo, commit)))
        assert result["outcome"] == "succeeded", result
        evaluation = cast("dict[str, object]", result["evaluation"])
        assert evaluation["script"] is True
        assert len(cast("list[object]", evaluation["attributes"])) == int(number == 1)


def test_a_script_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    message = failed(run_script(tmp_path, "#!/no/such/shell\n"), "build_failed")
    assert "not found" in message


def test_silence_and_wall_clock_end_a_script_with_all_it_started(tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    left = f"#!/bin/sh\n(exec -a {shlex.quote(marker)} sleep 3600) & setsid sleep 3601 & echo started; sleep 3602\n"
    server = run_script(tmp_path, left.replace("/bin/sh", "/bin/bash"), silence_seconds=3)
    assert "printed nothing for 3 s" in failed(server, "silent")
    again = tmp_path / "again"
    chatter = "#!/bin/sh\nwhile :; do echo again; sleep 0.2; done\n"
    assert "longer than 4 s" in failed(run_script(again, chatter, wall_seconds=4), "timeout")
    eventually(lambda: marker not in commands(), commands)


def test_what_a_script_leaves_behind_is_ended_even_if_it_talks(tmp_path: Path) -> None:
    text = "#!/bin/sh\n(while :; do echo chatter; sleep 0.1; done) &\necho done\n"
    server = run_script(tmp_path, text)
    assert result_of(server)["outcome"] == "succeeded"


def test_a_stop_reaches_a_script(tmp_path: Path) -> None:
    commit = script_repo(tmp_path / "repo", "#!/bin/sh\necho begun; exec sleep 3600\n")
    server = RunnerServer(script_order(tmp_path / "repo", commit))
    runner = RunnerProcess(tmp_path / "home", server)
    try:
        eventually(lambda: "begun" in server.log, lambda: server.log)
        server.stop = "cancelled"
        assert runner.wait().status == 0
    finally:
        runner.end()
        server.close()
    failed(server, "cancelled")


def test_endless_output_without_a_line_break_is_bounded(tmp_path: Path) -> None:
    text = "#!/bin/sh\nhead -c 30000000 /dev/zero | tr '\\0' x\necho; echo the end\n"
    server = run_script(tmp_path, text, log_bytes=200_000)
    assert result_of(server)["outcome"] == "succeeded"
    assert len(server.log) <= 200_000
    assert "bytes of log were left out" in server.log
    assert "the end" in server.log


@pytest.mark.skipif(os.geteuid() != 0, reason="the bomb runs as a user of its own, which only root can choose")
def test_a_fork_bomb_is_bounded_and_ended() -> None:
    uid = 64_231
    bomb = "#!/bin/bash\nrenice --priority 19 $$ >/dev/null\nbomb() { bomb | bomb & }\nbomb 2>/dev/null\nsleep 2\n"
    # Not below pytest's own directory, where nobody else gets to.
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o755)
        commit = script_repo(root / "repo", bomb)
        server = RunnerServer(script_order(root / "repo", commit, wall_seconds=2))
        runner = RunnerProcess(root / "home", server, user=uid)
        try:
            ended = runner.wait()
        finally:
            runner.end()
            server.close()
    assert ended.status == 0, ended.stderr
    assert server.result is not None
    eventually(lambda: processes_of(uid) == [], lambda: str(processes_of(uid)))


def test_links_in_a_checkout_lead_the_runner_nowhere(tmp_path: Path) -> None:
    """A script may replace what the runner has written; what the runner writes afterwards stays its own."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    text = f"""#!/bin/sh
cd "$(dirname "$ALBATROS_SECRETS")"
rm -f log secrets nix.conf; ln -s {shlex.quote(str(victim))} log; ln -s {shlex.quote(str(victim))} secrets
ln -s {shlex.quote(str(victim))} nix.conf; echo after
"""
    server = run_script(tmp_path, text, SECRETS)
    assert result_of(server)["outcome"] == "succeeded"
    assert "after\n" in server.log
    assert victim.read_text() == "untouched"


def test_the_credential_of_the_clone_is_gone_before_the_script_runs(tmp_path: Path) -> None:
    commit = script_repo(
        tmp_path / "repo",
        '#!/bin/sh\nls "$(dirname "$ALBATROS_SECRETS")"\n'
        "cat /proc/$PPID/environ >/dev/null 2>&1 && echo readable\nexit 0\n",
    )
    order = script_order(tmp_path / "repo", commit)
    order["access_tokens"] = {"git.example.org": "token-of-a-flake-0123456789"}
    server = run_order(tmp_path / "home", order)
    assert result_of(server)["outcome"] == "succeeded"
    assert "nix.conf" in server.log
    assert "credential-" not in server.log
