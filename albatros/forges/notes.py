"""Commit statuses as git notes: one line a context, `context TAB state TAB description TAB url`.

A note is read, changed and written by plumbing commands, and the ref moves by compare-and-swap, so that two servers
that write at once lose nothing. The tree has git's own fan-out of two digits, which keeps each write small.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from albatros.domain.refs import one_line
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges.gitcmd import run_git, try_git

NOTES_REF = "refs/notes/albatros"
TRIES = 20
MAX_NOTE = 256 << 10
_NO_OBJECT = ""


def write_line(repo: Path, commit: str, context: str, fields: tuple[str, str, str]) -> None:
    """Make the commit's note say `fields` (state, description, URL) under `context`, whatever it said before.

    Raises ForgeError when the commit is not there, ForgeUnavailableError when others keep winning the race.
    """
    if try_git(repo, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise ForgeError(f"{repo} has no commit {commit}; it was rewritten and collected")
    line = "\t".join(one_line(text.replace("\t", " "), 1024) for text in (context, *fields))
    for _ in range(TRIES):
        tip = _resolve(repo, f"{NOTES_REF}^{{commit}}")
        note = _merge(_read_note(repo, tip, commit), context, line)
        if note is None or _swap(repo, tip, _write_commit(repo, tip, commit, note)):
            return
        time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - spreads out writers, guards nothing
    raise ForgeUnavailableError(f"{NOTES_REF} of {repo} is being moved by others all the time")


def _resolve(repo: Path, name: str) -> str:
    found = try_git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", name)
    return found.stdout.decode().strip() if found.returncode == 0 else _NO_OBJECT


def _read_note(repo: Path, tip: str, commit: str) -> bytes:
    """The note as it is; `git notes` writes a small notes tree without fan-out, so both places are looked at."""
    for path in (f"{commit[:2]}/{commit[2:]}", commit) if tip else ():
        blob = _resolve(repo, f"{tip}:{path}")
        if blob and int(run_git(repo, "cat-file", "-s", blob)) <= MAX_NOTE:
            return run_git(repo, "cat-file", "blob", blob)
    return b""


def _merge(note: bytes, context: str, line: str) -> bytes | None:
    """The note with this context's line replaced or added; None when it says that already."""
    lines = note.decode("utf-8", "replace").splitlines()
    kept = [old for old in lines if old.split("\t", 1)[0] != one_line(context, 1024)]
    if len(kept) + 1 == len(lines) and line in lines:
        return None
    return "".join(f"{text}\n" for text in (*kept, line)).encode()


def _write_commit(repo: Path, tip: str, commit: str, note: bytes) -> str:
    blob = run_git(repo, "hash-object", "-w", "--stdin", data=note).decode().strip()
    directory, name = commit[:2], commit[2:]
    inner = _entries(repo, f"{tip}:{directory}") if tip else {}
    inner[name] = f"100644 blob {blob}"
    outer = _entries(repo, tip) if tip else {}
    outer.pop(commit, None)
    outer[directory] = f"040000 tree {_make_tree(repo, inner)}"
    parents = ["-p", tip] if tip else []
    tree = _make_tree(repo, outer)
    return run_git(repo, "commit-tree", tree, *parents, "-m", f"Status of {commit}").decode().strip()


def _entries(repo: Path, tree: str) -> dict[str, str]:
    """A tree's entries: name to `mode type id`; none when there is no such tree."""
    if not _resolve(repo, f"{tree}^{{tree}}"):
        return {}
    listed = run_git(repo, "ls-tree", "-z", tree).decode("utf-8", "surrogateescape")
    pairs = (entry.partition("\t") for entry in listed.split("\0") if entry)
    return {name: head for head, _, name in pairs}


def _make_tree(repo: Path, entries: dict[str, str]) -> str:
    text = "".join(f"{head}\t{name}\0" for name, head in entries.items())
    return run_git(repo, "mktree", "-z", data=text.encode("utf-8", "surrogateescape")).decode().strip()


def _swap(repo: Path, old: str, new: str) -> bool:
    """Move the ref from `old` to `new`; False when it is no longer at `old`."""
    expected = old or "0" * len(new)
    return try_git(repo, "update-ref", "-m", "albatros: status", NOTES_REF, new, expected).returncode == 0
