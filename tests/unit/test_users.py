"""A program that root starts as another user has that user's rights and no others, whichever way it is started."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros import users

UID, GID = 64198, 64197
TELL = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd())"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")


@pytest.fixture(params=["chroot", "fork"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With and without GNU chroot on PATH."""
    if request.param == "fork":
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    users._chroot.cache_clear()
    yield request.param
    users._chroot.cache_clear()


def run(argv: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    start = users.as_user(UID, GID, argv)
    return subprocess.run(
        start.argv,
        cwd=directory,
        user=start.user,
        group=start.group,
        extra_groups=start.extra_groups,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_has_the_ids_and_no_groups_where_it_was_started(way: str) -> None:
    done = run(["/usr/bin/python3", "-I", "-S", "-c", TELL], Path("/usr"))
    assert done.stdout.split() == f"{(UID,) * 3} {(GID,) * 3} [] /usr".split(), done.stderr
    assert ("chroot" in users.as_user(UID, GID, ["x"]).argv[0]) == (way == "chroot")


def test_it_keeps_no_capability(way: str) -> None:
    done = run(["grep", "^Cap[IPEA]", "/proc/self/status"], Path("/"))
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"0" * 16}, (way, done)


def test_a_program_that_it_cannot_reach_is_not_run(way: str, tmp_path: Path) -> None:
    program = tmp_path / "closed" / "program"
    program.parent.mkdir(mode=0o700)
    program.symlink_to(sys.executable)
    tmp_path.chmod(0o755)
    try:
        assert run([str(program), "-c", "print('ran')"], Path("/")).stdout == "", way
    except PermissionError:
        assert way == "fork"
