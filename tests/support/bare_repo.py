"""A bare repo as an operator sets it up, with the real post-receive hook, and the clone that a person pushes from."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from albatros.assets import deploy_dir
from tests.support.runner import GIT, git

NOTES = "albatros"
AGGREGATE = "albatros"


@dataclass(frozen=True, slots=True)
class Status:
    """One line of a commit's note."""

    context: str
    state: str
    description: str
    url: str


class BareRepo:
    """`ROOT/OWNER/NAME.git`, and a work tree beside it."""

    def __init__(self, root: Path, full_name: str, webhook: str, secret_file: Path) -> None:
        self.full_name = full_name
        self.bare = root / f"{full_name}.git"
        self.work = root.parent / "work" / full_name
        self.bare.mkdir(parents=True)
        git(self.bare, "init", "--quiet", "--bare", "--initial-branch=main")
        for directory in (self.bare, self.bare.parent):
            directory.chmod(0o755)
        hook = self.bare / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        shutil.copyfile(deploy_dir() / "git" / "post-receive", hook)
        hook.chmod(0o755)
        for key, value in (("url", webhook), ("secretFile", str(secret_file)), ("repo", full_name)):
            git(self.bare, "config", f"albatros.{key}", value)
        self.work.mkdir(parents=True)
        git(self.work, "init", "--quiet", "--initial-branch=main")

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

    def push(self, branch: str = "main") -> str:
        """`git push`; what git and the hook said, whether or not the hook reached the server."""
        command = [*GIT, "-C", str(self.work), "push", str(self.bare), f"HEAD:refs/heads/{branch}"]
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

    def statuses(self, commit: str) -> list[Status]:
        """The lines of a commit's note, read by git itself; none before the first."""
        command = ["git", f"--git-dir={self.bare}", "notes", f"--ref={NOTES}", "show", commit]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return [Status(*line.split("\t")) for line in done.stdout.splitlines()] if done.returncode == 0 else []

    def status(self, commit: str) -> Status | None:
        """The one line of the Build as a whole."""
        lines = [status for status in self.statuses(commit) if status.context == AGGREGATE]
        assert len(lines) < 2, lines
        return lines[0] if lines else None
