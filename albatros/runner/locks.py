"""Refuses a flake.lock whose inputs lie on this machine: they could name any file that the runner's user can read.

Nix itself refuses an unlocked one, but takes a `path` or `file:` input whose hash the repo's author knows or guesses.
"""

import json
from typing import cast

from albatros.runner.failure import JobFailedError, Reason

LOCAL_SCHEMES = ("file:", "git+file:", "hg+file:", "tarball+file:", "file+file:", "path:", "/")


def refuse_local_inputs(lock: str | None) -> None:
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
            if isinstance(reference, dict) and _is_local(cast("dict[str, object]", reference)):
                where = reference.get("path") or reference.get("url")
                text = (
                    f"The input {name!r} in flake.lock lies on the runner's machine ({where}), "
                    "which no repo may read; put it into the repo or on a server."
                )
                raise JobFailedError(Reason.EVALUATION_FAILED, text)


def _is_local(reference: dict[str, object]) -> bool:
    if reference.get("type") == "path":
        path = str(reference.get("path", ""))
        # A relative path stays inside the flake's own source, where Nix keeps it.
        return path.startswith("/") or ".." in path.split("/")
    return str(reference.get("url", "")).strip().lower().startswith(LOCAL_SCHEMES)
