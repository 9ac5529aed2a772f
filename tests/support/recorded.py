"""Webhooks as forges send them, out of tests/fixtures/webhooks; its README says where each comes from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from albatros.settings import ForgeKind

WEBHOOKS = Path(__file__).resolve().parents[1] / "fixtures" / "webhooks"
FOLDERS = {
    ForgeKind.GITEA: WEBHOOKS / "gitea-1.26.0",
    ForgeKind.FORGEJO: WEBHOOKS / "forgejo-11",
    ForgeKind.GITHUB: WEBHOOKS / "github-2022-11-28",
    ForgeKind.GITLAB: WEBHOOKS / "gitlab-19",
}
Json = Mapping[str, object]


def names(kind: ForgeKind) -> list[str]:
    """What there is of a kind of forge."""
    return sorted(path.stem for path in FOLDERS[kind].glob("*.headers"))


def recorded(kind: ForgeKind, name: str) -> tuple[dict[str, str], bytes]:
    """Headers, with their names as they were sent, and body; Forgejo's bodies are Gitea's."""
    pairs = (line.split(": ", 1) for line in (FOLDERS[kind] / f"{name}.headers").read_text().splitlines())
    bodies = FOLDERS[ForgeKind.GITEA if kind is ForgeKind.FORGEJO else kind]
    return dict(cast("tuple[str, str]", pair) for pair in pairs), (bodies / f"{name}.json").read_bytes()


def lowered(message: tuple[Mapping[str, str], bytes]) -> tuple[dict[str, str], bytes]:
    """The message as a forge's adapter gets it, with lower names of headers."""
    return {name.lower(): value for name, value in message[0].items()}, message[1]


def changed(kind: ForgeKind, name: str, changes: Json) -> tuple[dict[str, str], bytes]:
    """A message with other values in some of its fields, as an adapter gets it; its signature fits no more."""
    headers, body = lowered(recorded(kind, name))
    return headers, json.dumps(overlaid(json.loads(body), changes)).encode()


def overlaid(base: Json, changes: Json) -> dict[str, object]:
    """An object with changes in any depth; lists are replaced."""
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = overlaid(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found
