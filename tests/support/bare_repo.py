"""A bare repo as an operator sets it up, with the real post-receive hook; its statuses are git notes."""

import shutil
import subprocess
from pathlib import Path

from albatros.assets import deploy_dir
from tests.support.runner import git
from tests.support.work_tree import Project, Status

NOTES = "albatros"


class BareRepo(Project):
    """`ROOT/OWNER/NAME.git`, and a work tree beside ROOT."""

    def __init__(self, root: Path, full_name: str, webhook: str, secret_file: Path) -> None:
        self.bare = root / f"{full_name}.git"
        super().__init__(full_name, root.parent / "work" / full_name, str(self.bare))
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

    def statuses(self, commit: str) -> list[Status]:
        """The lines of a commit's note, read by git itself; none before the first."""
        command = ["git", f"--git-dir={self.bare}", "notes", f"--ref={NOTES}", "show", commit]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return [Status(*line.split("\t")) for line in done.stdout.splitlines()] if done.returncode == 0 else []
