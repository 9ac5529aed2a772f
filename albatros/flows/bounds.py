"""What a Build may use: the operator's limits, and what its repo asks for within them."""

from __future__ import annotations

from dataclasses import dataclass

from albatros.domain import repo_config
from albatros.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds of wall clock and of silence of one Attempt; MiB of memory that its repo asks for, 0 for no wish."""

    wall_seconds: int
    silence_seconds: int
    memory_mb: int


def bounds_of(limits: LimitSettings, config: str | None) -> Bounds:
    """The bounds in force under a `.albatros.toml`, given as its text; it can only narrow what the operator allows."""
    narrowed = repo_config.parse(config).limits
    return Bounds(
        wall_seconds=min(limits.job_seconds, narrowed.job_seconds or limits.job_seconds),
        silence_seconds=min(limits.silence_seconds, narrowed.silence_seconds or limits.silence_seconds),
        memory_mb=narrowed.memory_mb or 0,
    )
