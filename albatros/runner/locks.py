"""Refuses a flake whose inputs lie on this machine: they could name any file that the runner's user can read.

Nix refuses to use an input that is not locked, but has copied it into its store by then; and it takes a locked one
whose hash the repo's author knows or guesses. So flake.nix and flake.lock are read here first, without fetching.
"""

import json
from typing import cast

from albatros.runner.failure import JobFailedError, Reason

FILE_TRANSPORTS = ("file:", "git+file:", "hg+file:", "tarball+file:", "file+file:")
# A flake's inputs are literals, so that they evaluate without anything else; its text in parentheses means the same.
INPUTS = "({text}\n).inputs or {{ }}"
DEEPEST = 20


def inputs_expression(flake: str) -> str:
    """An expression for the declared inputs of a flake.nix with this text."""
    return INPUTS.format(text=flake)


def refuse_local_inputs(inputs: object) -> None:
    """Check the declared inputs, as JSON has them. Raises JobFailedError (evaluation_failed)."""
    for name, declared in _entries(inputs, 0):
        url = str(declared.get("url") or "")
        if is_local(url) or _is_local_path(declared):
            raise _refusal(name, "flake.nix", url or str(declared.get("path")))


def refuse_local_locks(lock: str | None) -> None:
    """Check the text of a flake.lock (None: there is none). Raises JobFailedError (evaluation_failed)."""
    if lock is None:
        return
    try:
        document: object = json.loads(lock)
    except (ValueError, RecursionError) as error:
        raise JobFailedError(Reason.EVALUATION_FAILED, f"flake.lock is not JSON: {error}.") from error
    nodes = document.get("nodes") if isinstance(document, dict) else None
    for name, node in (nodes if isinstance(nodes, dict) else {}).items():
        for key in ("locked", "original"):
            reference = node.get(key) if isinstance(node, dict) else None
            if isinstance(reference, dict):
                fields = cast("dict[str, object]", reference)
                if is_local(str(fields.get("url") or "")) or _is_local_path(fields):
                    raise _refusal(str(name), "flake.lock", str(fields.get("url") or fields.get("path")))


def is_local(url: str) -> bool:
    """Whether a flake reference names a place on this machine outside of the flake's own source."""
    text = url.strip().lower()
    if text.startswith(FILE_TRANSPORTS):
        return True
    path = text.removeprefix("path:").partition("?")[0]
    is_path = text.startswith(("path:", "/", ".", "~"))
    return is_path and _leaves_the_flake(path)


def _is_local_path(fields: dict[str, object]) -> bool:
    return fields.get("type") == "path" and _leaves_the_flake(str(fields.get("path") or ""))


def _leaves_the_flake(path: str) -> bool:
    return path.startswith(("/", "~")) or ".." in path.replace("%2e", ".").split("/") or "%2f" in path


def _entries(inputs: object, depth: int) -> list[tuple[str, dict[str, object]]]:
    """Declared inputs and those that are declared for them."""
    found: list[tuple[str, dict[str, object]]] = []
    for name, declared in (inputs if isinstance(inputs, dict) and depth < DEEPEST else {}).items():
        if isinstance(declared, dict):
            found += [(str(name), cast("dict[str, object]", declared)), *_entries(declared.get("inputs"), depth + 1)]
    return found


def _refusal(name: str, file: str, where: str) -> JobFailedError:
    text = (
        f"The input {name!r} in {file} lies on the runner's machine ({where}), "
        "which no repo may read; put it into the repo or on a server."
    )
    return JobFailedError(Reason.EVALUATION_FAILED, text)
