"""What people are shown of a job in Nomad: where it is, why it waits, what happened to its task."""

from __future__ import annotations

from urllib.parse import quote

from albatros.executors.nomad_words import Allocation
from albatros.settings import NomadSettings


def facts_of(
    settings: NomadSettings, job: str, allocation: Allocation | None, *, dead: bool, waits: str
) -> dict[str, object]:
    """A job by its newest allocation; `waits` says why it has none. JSON, with a link to Nomad's web pages."""
    base = (settings.ui_url or settings.addresses[0]).rstrip("/")
    if allocation is None:
        page = f"{base}/ui/jobs/{quote(job, safe='')}@{quote(settings.namespace, safe='')}"
        return {"job": job, "state": "dead" if dead else "pending", "waits": waits, "url": page}
    return {
        "job": job,
        "state": allocation.client_status,
        "waits": "",
        "url": f"{base}/ui/allocations/{quote(allocation.id, safe='')}",
        "allocation": allocation.id,
        "node": allocation.node,
        "description": allocation.desired_description or allocation.client_description,
        "events": [{"at": one.at, "kind": one.kind, "message": one.message} for one in allocation.events],
    }
