"""The clone that a person commits in and pushes from, and what the forge shows of a commit."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.runner import GIT, git

AGGREGATE = "albatros"


@dataclass(frozen=True, slots=True)
class Status:
    """One status of a commit."""

    context: str
    state: str
    description: str
    url: str


class Project:
    """A git project on some forge: its work tree, where it is pushed to, and its commits' statuses."""

    def __init__(self, full_name: str, work: Path, remote: str) -> None:
        self.full_name = full_name
        self.work = work
        self._remote = remote
        work.mkdir(parents=True)
        git(work, "init", "--quiet", "--initial-branch=main")

    def statuses(self, commit: str) -> list[Status]:
        """Every status that the forge shows, asked of the forge itself."""
        raise NotImplementedError

    def status(self, commit: str) -> Status | None:
        """The one of the Build as a whole."""
        found = [status for status in self.statuses(commit) if status.context == AGGREGATE]
        assert len(found) < 2, found
        return found[0] if found else None

    def commit(self, files: Mapping[str, str], *, at_time_of: str = "") -> str:
        """Make a commit whose tree holds exactly these files, with the date of another one if asked; its id."""
        for entry in self.work.iterdir():
            if entry.name != ".git":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.commit_all(at_time_of=at_time_of)

    def commit_all(self, *, at_time_of: str = "") -> str:
        """Commit the work tree as it is; the commit's id."""
        git(self.work, "add", "--all")
        date = git(self.work, "log", "-1", "--format=%ct +0000", at_time_of) if at_time_of else ""
        environment = {**os.environ, "GIT_COMMITTER_DATE": date} if date else None
        command = [*GIT, "-C", str(self.work), "commit", "--quiet", "--allow-empty", "--message=test"]
        subprocess.run(command, check=True, env=environment, capture_output=True)
        return git(self.work, "rev-parse", "HEAD")

    def push(self, refspec: str = "HEAD:refs/heads/main") -> str:
        """`git push`; what git and the hook said, whether or not the hook reached the server."""
        command = [*GIT, "-C", str(self.work), "push", self._remote, refspec]
        # A test's LFS pointers may name objects that there are not.
        environment = {**os.environ, "GIT_LFS_SKIP_PUSH": "1"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def push_files(self, files: Mapping[str, str]) -> str:
        """Commit these files and push them; the commit's id."""
        commit = self.commit(files)
        self.push()
        return commit
