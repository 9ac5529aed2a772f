"""The commands that talk to a server: what they print, where, and their exit codes."""

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from sqlalchemy import update

from albatros.cli import main
from albatros.db.models import Artifact, Attempt, Build, Job
from albatros.db.session import now
from albatros.db.signals import Topic
from albatros.domain.access import Scope
from albatros.domain.states import AttemptState, BuildState, JobState
from albatros.errors import ForgeError
from albatros.flows.progress import move_build
from tests.support.api import Api
from tests.support.forges import MemoryForge

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _environment(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALBATROS_SERVER", api.url)
    monkeypatch.setenv("ALBATROS_TOKEN", api.tokens[Scope.WRITE])
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | int, code: int = 0) -> str:
    """What a command wrote on stdout."""
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], *arguments: str | int, code: int) -> str:
    """What a failing command wrote on stderr; its stdout stays empty."""
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_lists_are_tables_and_json(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "build", "list", "--repo", "alba/hello").splitlines()
    assert lines[0].split() == ["ID", "REPO", "#", "STATE", "REF", "COMMIT", "CREATED", "TITLE"]
    assert len(lines) == 6
    assert any("running" in line and "home/alba/hello" in line for line in lines)
    builds = json.loads(printed(capsys, "build", "list", "--json", "--limit", 2))
    assert [build["state"] for build in builds] == ["queued", "running"]
    assert "hello" in printed(capsys, "repo", "list")
    assert {repo["name"] for repo in json.loads(printed(capsys, "repo", "list", "--json"))} > {"hello", "keys"}
    assert len(json.loads(printed(capsys, "artifact", "list", "--json", "--build", api.seeded.published))) == 4
    assert "sha256:" in printed(capsys, "artifact", "list")


def test_one_thing_is_shown_with_what_belongs_to_it(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "build", "show", api.seeded.published)
    for part in (
        "succeeded",
        "home/alba/hello #",
        "image hello sha256:",
        "linux/arm/v6",
        "alba/hello:main",
        "ARTIFACT",
    ):
        assert part in shown
    assert json.loads(printed(capsys, "build", "show", api.seeded.failed, "--json"))["reason"] == "build_failed"
    shown = printed(capsys, "job", "show", api.seeded.failed_job)
    assert "packages.armv6l-linux.driftnote" in shown
    assert json.loads(printed(capsys, "job", "show", api.seeded.failed_job, "--json"))["id"] == api.seeded.failed_job
    assert "default branch  main" in printed(capsys, "repo", "show", "alba/hello")


def test_a_merge_result_is_shown_with_its_base(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert "merged into" not in printed(capsys, "build", "show", api.seeded.failed)
    with api.context.database.write() as session:
        merged = {"merge_into": "refs/heads/release/2", "base_commit": COMMIT}
        session.execute(update(Build).where(Build.id == api.seeded.failed).values(merged))
    assert f"release/2 at {COMMIT}" in printed(capsys, "build", "show", api.seeded.failed)


def test_a_job_on_a_cluster_is_shown_with_its_place(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    with api.context.database.write() as session:
        place = {"job": "alb-1", "allocation": "a1", "node": "n1", "url": "https://nomad.example.org/ui/allocations/a1"}
        session.execute(update(Attempt).where(Attempt.job_id == api.seeded.failed_job).values(placement=place))
    shown = printed(capsys, "job", "show", api.seeded.failed_job)
    assert "allocation  a1" in shown
    assert "https://nomad.example.org/ui/allocations/a1" in shown


def test_trigger_cancel_and_rerun(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    forge = MemoryForge()
    forge.add("alba/hello", main=COMMIT)
    api.forges["home"] = forge
    build = json.loads(printed(capsys, "build", "trigger", "alba/hello", "--ref", "main", "--json"))
    assert (build["commit"], build["state"], build["flavor"]) == (COMMIT, "queued", "")
    wanted = ("alba/hello", "--ref", "main", "--flavor", "nightly", "--json")
    assert json.loads(printed(capsys, "build", "trigger", *wanted))["flavor"] == "nightly"
    assert "is cancelled" in printed(capsys, "build", "cancel", build["id"])
    assert "is queued" in printed(capsys, "build", "rerun", build["id"])
    assert "has ended already" in told(capsys, "build", "cancel", build["id"], code=1)


def test_adding_a_repo_takes_an_admins_token_from_a_file(
    api: Api, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    forge = MemoryForge()
    forge.add("stranger/thing")
    api.forges["home"] = forge
    assert "needs admin" in told(capsys, "repo", "add", "home/stranger/thing", code=1)
    (tmp_path / "token").write_text(api.tokens[Scope.ADMIN] + "\n")
    shown = printed(capsys, "repo", "add", "home/stranger/thing", "--token-file", str(tmp_path / "token"))
    assert shown.startswith("home/stranger/thing may build")
    assert "webhook         shown to its admins" in printed(capsys, "repo", "show", "stranger/thing")
    admin = ("--token-file", str(tmp_path / "token"))
    assert "webhook         ready: " in printed(capsys, "repo", "show", "stranger/thing", *admin)
    assert json.loads(printed(capsys, "repo", "remove", "stranger/thing", "--json", *admin))["state"] == "missing"
    assert "may build       no" in printed(capsys, "repo", "show", "stranger/thing", *admin)


def test_adding_a_repo_fails_where_its_webhook_is_left_to_the_person(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forge = MemoryForge()
    forge.add("stranger/thing")
    api.forges["home"] = forge
    api.hooks.fails = ForgeError("home refuses")
    monkeypatch.setenv("ALBATROS_TOKEN", api.tokens[Scope.ADMIN])
    assert main(["repo", "add", "https://git.example.org/stranger/thing"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("home/stranger/thing may build")
    assert "home refuses. Or create the webhook by hand: " in captured.err


def test_logs_are_printed_whole(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    whole = api.reader.get(f"/api/v1/jobs/{api.seeded.failed_job}/log").text
    assert printed(capsys, "job", "log", api.seeded.failed_job) == whole
    assert printed(capsys, "job", "log", "-f", api.seeded.failed_job, code=1) == whole
    of_build = printed(capsys, "build", "log", api.seeded.failed)
    assert whole in of_build
    assert len(of_build) > len(whole)


def test_following_a_build_that_failed_exits_with_1(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "log", "-f", str(api.seeded.failed)]) == 1
    captured = capsys.readouterr()
    assert captured.out
    assert f"build {api.seeded.failed} failed: " in captured.err
    assert main(["build", "log", "--follow", str(api.seeded.published)]) == 0
    assert "hub: hello:main published" in capsys.readouterr().err


def test_following_goes_on_until_the_build_ends(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of the build has ended when the command begins."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["build", "log", "-f", str(api.seeded.running)])))
    thread.start()
    with api.context.database.write() as session:
        job = session.get_one(Job, api.seeded.running_job)
        attempt = session.get_one(Attempt, api.seeded.running_attempt)
        attempt.state = AttemptState.SUCCEEDED
        for one in session.query(Job).where(Job.build_id == api.seeded.running):
            one.state, one.ended_at = JobState.SUCCEEDED, now()
        session.flush()
        move_build(session, job.build, BuildState.SUCCEEDED)
    api.context.signals.notify(Topic.WATCHERS)
    thread.join(60)
    assert codes == [0]
    assert f"build {api.seeded.running} succeeded" in capsys.readouterr().err


def stored(api: Api, data: bytes, executable: bool = True) -> Artifact:
    blob = api.store.put([data])
    with api.context.database.write() as session:
        row = session.get_one(Artifact, api.reader.get("/api/v1/artifacts").json()["items"][0]["id"])
        row.digest, row.size, row.path, row.executable = blob.digest, blob.size, "bin/tool", executable
        return row


def test_an_artifact_is_saved_under_its_name_once_its_digest_is_right(
    api: Api, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = os.urandom(300_000)
    artifact = stored(api, data)
    assert printed(capsys, "artifact", "get", artifact.id).strip() == "tool"
    assert (tmp_path / "tool").read_bytes() == data
    assert os.access(tmp_path / "tool", os.X_OK)
    assert "is there already" in told(capsys, "artifact", "get", artifact.id, code=2)
    saved = json.loads(printed(capsys, "artifact", "get", artifact.id, "-o", "other", "--json"))
    assert (saved["saved"], saved["digest"]) == ("other", f"sha256:{hashlib.sha256(data).hexdigest()}")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_artifact_with_another_digest_is_not_kept(
    api: Api, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    artifact = stored(api, b"what was promised")
    api.store.blobs[artifact.digest] = (b"what is delivered", now())  # type: ignore[index]  # text in the row
    assert "download it again" in told(capsys, "artifact", "get", artifact.id, code=1)
    assert not (tmp_path / "tool").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_wrong_use_is_2_and_a_refusal_is_1(api: Api, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no build 999999" in told(capsys, "build", "show", 999999, code=1)
    assert "cannot be read" in told(capsys, "build", "list", "--token-file", str(tmp_path / "none"), code=2)
    assert "newest attempt" in told(capsys, "job", "log", "-f", "--attempt", 1, 1, code=2)
    assert "does not answer" in told(capsys, "build", "list", "--server", "http://127.0.0.1:1", code=1)
    for arguments in (
        ["build"],
        ["build", "list", "--limit", "0"],
        ["build", "list", "--status", "x"],
        ["build", "show", "x"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        capsys.readouterr()


def test_without_a_token_the_server_says_what_to_send(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALBATROS_TOKEN")
    assert "Authorization: Bearer" in told(capsys, "build", "list", code=1)
    monkeypatch.setenv("ALBATROS_TOKEN", "caf\u00e9")
    assert "copy it again" in told(capsys, "build", "list", code=2)
