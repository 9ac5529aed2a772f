"""Where an executor says that an Attempt is, as pages and the API show it: out of the database, not of the executor."""

from __future__ import annotations

from dataclasses import dataclass

from albatros.db.models import Attempt

SHORT = 8


@dataclass(frozen=True, slots=True)
class PlacementEvent:
    """One line of what happened to it; `at` as RFC 3339 writes it."""

    at: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Placement:
    """An Attempt's place in the executor's own words; what it does not say is empty."""

    job: str
    allocation: str
    node: str
    state: str
    waits: str
    """Why it has no place yet."""
    description: str
    url: str
    """The executor's own page about it."""
    events: tuple[PlacementEvent, ...]

    @property
    def name(self) -> str:
        """What a link to it says."""
        return f"allocation {self.allocation[:SHORT]}" if self.allocation else "job"


def placement_of(attempt: Attempt) -> Placement | None:
    """What was said last of where an Attempt is; None when nothing was."""
    facts = attempt.placement
    if not facts:
        return None
    events = facts.get("events")
    return Placement(
        job=_text(facts, "job"),
        allocation=_text(facts, "allocation"),
        node=_text(facts, "node"),
        state=_text(facts, "state"),
        waits=_text(facts, "waits"),
        description=_text(facts, "description"),
        url=_text(facts, "url"),
        events=tuple(
            PlacementEvent(_text(one, "at"), _text(one, "kind"), _text(one, "message"))
            for one in (events if isinstance(events, list) else [])
            if isinstance(one, dict)
        ),
    )


def _text(facts: dict[str, object], key: str) -> str:
    value = facts.get(key)
    return value if isinstance(value, str) else ""
