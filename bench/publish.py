"""Publishing four archives as one multi-platform tag, side by side with skopeo, crane and regctl."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench.in_server import unchanged_in_server
from bench.inputs import Inputs, make_inputs
from bench.pipelines import ALBATROS, FAST, NAME, PEERS, TAG, Cost, Pipeline, run
from bench.report import Figure, say
from tests.services.registry import RegistryServer, start_registry
from tests.tools import missing

SMALL_MIB, LARGE_MIB = 25, 200
ROUNDS = {SMALL_MIB: 5, LARGE_MIB: 2}
PAUSE_SECONDS = 3.0
"""The disk writes what the one before left, and a file that was made just now is not taken for unchanged."""
AIM_FIRST, AIM_FAST, AIM_UNCHANGED, AIM_IN_SERVER = 0.6, 0.35, 1.0, 0.2
AIM_PEAK_MIB = 120
FIRST, UNCHANGED, CHANGED = "first push", "unchanged push", "one platform changed"


@dataclass(frozen=True, slots=True)
class _Seen:
    """One push: its cost, and MB (10⁶ bytes) of blobs that the registry has after it."""

    cost: Cost
    stored_mb: float


_Rounds = Mapping[tuple[str, str], list[_Seen]]


def measure(mib: int) -> Sequence[Figure]:
    """Rounds of every pipeline in turn, each into an empty registry.

    Raises RuntimeError when a program is missing or fails.
    """
    if lacking := missing("crane", "docker-registry", "go", "regctl", "skopeo"):
        raise RuntimeError(lacking)
    with tempfile.TemporaryDirectory(prefix="albatros-bench-") as directory:
        inputs = make_inputs(Path(directory), mib)
        rounds: dict[tuple[str, str], list[_Seen]] = {}
        in_server: list[float] = []
        for number in range(ROUNDS[mib]):
            for pipeline in (ALBATROS, *PEERS, FAST):
                say(f"{mib} MiB a platform, round {number + 1}: {pipeline.name}")
                time.sleep(PAUSE_SECONDS)
                for what, seen in _push(pipeline, inputs).items():
                    rounds.setdefault((pipeline.name, what), []).append(seen)
            with start_registry() as registry:
                in_server.append(unchanged_in_server(registry.url, list(inputs.first.values()), NAME, TAG))
    return [*_costs(mib, rounds), *_ratios(mib, rounds, in_server)]


small, large = partial(measure, SMALL_MIB), partial(measure, LARGE_MIB)


def _push(pipeline: Pipeline, inputs: Inputs) -> dict[str, _Seen]:
    """The three pushes one after the other, into one registry."""
    with start_registry() as registry, tempfile.TemporaryDirectory(prefix="albatros-bench-") as home:
        return {
            what: _Seen(run(pipeline, registry.host, archives, Path(home)), _stored_mb(registry))
            for what, archives in ((FIRST, inputs.first), (UNCHANGED, inputs.first), (CHANGED, inputs.changed))
        }


def _stored_mb(registry: RegistryServer) -> float:
    blobs = registry.root / "docker" / "registry" / "v2" / "blobs"
    return sum(file.stat().st_size for file in blobs.rglob("data")) / 1e6


def _costs(mib: int, rounds: _Rounds) -> list[Figure]:
    figures = []
    for (pipeline, what), seen in rounds.items():
        cpu = median(one.cost.cpu for one in seen)
        peak = max(one.cost.peak_mib for one in seen)
        stored = median(one.stored_mb for one in seen)
        note = f"CPU {cpu:.2f} s, largest process {peak:.0f} MiB, {stored:.1f} MB stored"
        walls = tuple(round(one.cost.wall, 3) for one in seen)
        figures.append(Figure(f"{mib} MiB, {what}: {pipeline}", median(walls), "s", samples=walls, note=note))
    return sorted(figures, key=lambda figure: figure.name.partition(":")[0])


def _ratios(mib: int, rounds: _Rounds, in_server: Sequence[float]) -> list[Figure]:
    """Albatros against the peer that was fastest in the same round, and the most memory that it took."""
    first, fast = _walls(rounds, ALBATROS, FIRST), _walls(rounds, FAST, FIRST)
    again = _walls(rounds, ALBATROS, UNCHANGED)
    best, best_again = _fastest_peers(rounds, FIRST), _fastest_peers(rounds, UNCHANGED)
    peak = max(one.cost.peak_mib for (name, _), seen in rounds.items() if name == ALBATROS.name for one in seen)
    return [
        _ratio(f"{mib} MiB, first push against the fastest peer", first, best, AIM_FIRST),
        _ratio(f"{mib} MiB, first push, fast, against the fastest peer", fast, best, AIM_FAST),
        _ratio(f"{mib} MiB, unchanged push against the fastest peer", again, best_again, AIM_UNCHANGED),
        _ratio(f"{mib} MiB, unchanged push in the server against it", in_server, best_again, AIM_IN_SERVER),
        Figure(f"{mib} MiB, unchanged push in the server", median(in_server), "s", samples=tuple(in_server)),
        Figure(f"{mib} MiB, largest albatros process", peak, "MiB", AIM_PEAK_MIB),
    ]


def _walls(rounds: _Rounds, pipeline: Pipeline, what: str) -> list[float]:
    return [one.cost.wall for one in rounds[pipeline.name, what]]


def _fastest_peers(rounds: _Rounds, what: str) -> list[float]:
    return [min(walls) for walls in zip(*(_walls(rounds, peer, what) for peer in PEERS), strict=True)]


def _ratio(name: str, own: Sequence[float], peers: Sequence[float], aim: float) -> Figure:
    """The median of the rounds' ratios: what else ran on the machine in a round slowed both down."""
    samples = tuple(round(mine / other, 3) for mine, other in zip(own, peers, strict=True))
    return Figure(name, median(samples), "of it", aim, samples)
