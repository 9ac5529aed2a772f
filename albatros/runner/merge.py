"""Makes the merge of two commits out of them alone, the same on every machine.

`git merge-tree` needs no work tree: no hook and no filter runs, and git reads no .gitattributes of the repo. Whatever
version of git does, `info/attributes` comes before them: every file is merged as git itself merges text, by no driver
that the repo names. A commit's id holds who made it and when, so both are fixed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.order import MergeOrder, RepoOrder

if TYPE_CHECKING:
    from albatros.runner.source import Git

NAMES_SHOWN = 10
_WHO = "Albatros", "albatros@localhost"


def merge(git: Git, repo: RepoOrder, into: MergeOrder) -> str:
    """Merge the order's commit into another; both are here with all that they come from. The merge commit's id.

    Raises JobFailedError (merge_conflict), which names the files, or (driver).
    """
    folder = os.path.join(git.path, ".git", "info")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "attributes"), "w", encoding="ascii") as file:
        file.write("* merge\n")
    if git.run("merge-base", into.commit, repo.commit).status == 1:
        text = f"{repo.commit} does not merge with {into.branch}: they have no commit in common."
        raise JobFailedError(Reason.MERGE_CONFLICT, text)
    merged = git.run("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", into.commit, repo.commit)
    if merged.status not in {0, 1}:
        raise git.problem("the merge could not be made, which needs git 2.38 or later")
    tree, *names = merged.stdout.decode("utf-8", "replace").rstrip("\0").split("\0")
    if merged.status == 1:
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        text = f"{repo.commit} does not merge with {into.branch}: conflicts in {', '.join(names[:NAMES_SHOWN])}{more}"
        raise JobFailedError(Reason.MERGE_CONFLICT, text)
    return _commit(git, tree, into.commit, repo.commit)


def _commit(git: Git, tree: str, base: str, head: str) -> str:
    """A merge commit as of the later of the two."""
    date = f"@{max(git.time_of(base), git.time_of(head))} +0000"
    for role in ("AUTHOR", "COMMITTER"):
        name, email = _WHO
        git.environment |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email, f"GIT_{role}_DATE": date}
    parents = ("-p", base, "-p", head)
    return git.must("commit-tree", *parents, "-m", f"Merge {head} into {base}", tree).decode("ascii").strip()
