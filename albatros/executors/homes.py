"""Where the local runner lives: a home of its own, a directory for each Attempt in it, and a Python it may run."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from albatros.errors import ExecutorError
from albatros.executors.isolation import Isolation, IsolationKind, reachable_by_others

NAME = "runner"
FALLBACK = Path("/var/tmp")  # noqa: S108 - what is found there is used only when it is ours
TRY_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Home:
    """The runner's place: `base` belongs to the server, `home` inside it to the runner."""

    base: Path
    isolation: Isolation

    @property
    def home(self) -> Path:
        """HOME of the runner, with its Nix store."""
        return self.base / "home"

    @property
    def zipapp(self) -> Path:
        """The runner itself, which it cannot change."""
        return self.base / "albatros-runner.pyz"

    def workdir(self, attempt_id: str) -> Path:
        """The directory of one Attempt."""
        return self.home / "work" / attempt_id

    def make_workdir(self, attempt_id: str, token: str) -> Path:
        """Make the directory of one Attempt, with its token in a file that the runner takes away."""
        workdir = self.workdir(attempt_id)
        shutil.rmtree(workdir, ignore_errors=True)
        self._make(workdir, 0o700)
        path = workdir / "token"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token)
        self._give(path)
        return path

    def remove_workdir(self, attempt_id: str) -> None:
        """Take the directory of an Attempt away. Raises ExecutorError when it stays."""
        workdir = self.workdir(attempt_id)
        if workdir.is_symlink():
            # What ran in it has put a link there: what that leads to is not ours to change.
            workdir.unlink()
        if not workdir.exists():
            return
        if os.geteuid() != 0:
            # Nix leaves directories that their owner may not write to.
            for folder, _, _ in os.walk(workdir):
                Path(folder).chmod(0o700)
        try:
            shutil.rmtree(workdir)
        except OSError as error:
            raise ExecutorError(f"{workdir} cannot be removed: {error.strerror}; remove it by hand") from error

    def prepare(self, zipapp: bytes) -> None:
        """Make everything, and put the zipapp in its place."""
        try:
            self.base.mkdir(mode=0o711, parents=True, exist_ok=True)
            found = self.base.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise ExecutorError(f"{self.base} belongs to somebody else; remove it, and start again")
            self.base.chmod(0o711)
            self._make(self.home, 0o700)
            self._make(self.home / "work", 0o700)
            draft = self.zipapp.with_suffix(".new")
            draft.write_bytes(zipapp)
            draft.chmod(0o644)
            draft.replace(self.zipapp)
        except OSError as error:
            raise ExecutorError(f"the runner's home {self.base} cannot be made: {error}") from error

    def _make(self, directory: Path, mode: int) -> None:
        directory.mkdir(mode=mode, exist_ok=True)
        self._give(directory)

    def _give(self, path: Path) -> None:
        if self.isolation.kind is IsolationKind.OTHER_USER:
            os.chown(path, self.isolation.uid, self.isolation.gid, follow_symlinks=False)


def choose_home(data: Path, isolation: Isolation) -> Home:
    """`runner` in the data directory; where another user cannot get there, a place in /var/tmp that is named for it."""
    if isolation.kind is not IsolationKind.OTHER_USER or reachable_by_others(data.resolve()):
        return Home(data.resolve() / NAME, isolation)
    name = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    return Home(FALLBACK / f"albatros-runner-{name}", isolation)


def choose_python(home: Home) -> str:
    """A Python that the runner's user can execute. Raises ExecutorError when there is none."""
    own = str(Path(sys.executable).resolve())
    for python in dict.fromkeys(
        [own, "/usr/bin/python3", "/run/current-system/sw/bin/python3", "/usr/local/bin/python3"]
    ):
        if _runs(python, home):
            return python
    raise ExecutorError(
        f"user {home.isolation.uid} can run no Python: {own} is closed to it and /usr/bin/python3 does not work; "
        "install python3, at least 3.11"
    )


def _runs(python: str, home: Home) -> bool:
    program = "import sys, ctypes, http.client; sys.exit(sys.version_info < (3, 11))"
    start = home.isolation.start([python, "-I", "-S", "-c", program])
    try:
        done = subprocess.run(
            start.argv,
            cwd="/",
            env={},
            capture_output=True,
            timeout=TRY_SECONDS,
            check=False,
            user=start.user,
            group=start.group,
            extra_groups=start.extra_groups,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
