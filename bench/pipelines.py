"""What brings four archives under one multi-platform tag, with Albatros and with its peers, and what each costs."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import ROOT
from tests.tools import find

Command = Sequence[str]
Stage = Sequence[Command]
"""Commands that run at the same time."""
NAME, TAG = "bench/app", "latest"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pipeline took: seconds, processor seconds of all its processes, MiB of the largest of them."""

    wall: float
    cpu: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A way to publish archives, by platform, at a host as one tag."""

    name: str
    stages: Callable[[str, Mapping[str, Path]], Sequence[Stage]]


def _albatros(*options: str) -> Callable[[str, Mapping[str, Path]], Sequence[Stage]]:
    def stages(host: str, archives: Mapping[str, Path]) -> Sequence[Stage]:
        program = str(Path(sys.executable).with_name("albatros"))
        sources = [str(path) for path in archives.values()]
        return [[[program, "image", "push", *sources, "-t", f"{NAME}:{TAG}", "--to", f"docker://{host}", *options]]]

    return stages


def _skopeo(host: str, archives: Mapping[str, Path]) -> Sequence[Stage]:
    copy = [find("skopeo"), "copy", "--quiet", "--dest-tls-verify=false"]
    pushes = [[*copy, f"docker-archive:{path}", f"docker://{_part(host, key)}"] for key, path in archives.items()]
    return [pushes, [_regctl_index(host, archives)]]


def _crane(host: str, archives: Mapping[str, Path]) -> Sequence[Stage]:
    crane = find("crane")
    pushes = [[crane, "push", str(path), _part(host, key)] for key, path in archives.items()]
    parts = [word for key in archives for word in ("-m", _part(host, key))]
    return [pushes, [[crane, "index", "append", *parts, "-t", f"{host}/{NAME}:{TAG}"]]]


def _regctl(host: str, archives: Mapping[str, Path]) -> Sequence[Stage]:
    imports = [[*_regctl_at(host), "image", "import", _part(host, key), str(path)] for key, path in archives.items()]
    return [imports, [_regctl_index(host, archives)]]


def _regctl_index(host: str, archives: Mapping[str, Path]) -> Command:
    parts = [word for key in archives for word in ("--ref", _part(host, key))]
    return [*_regctl_at(host), "index", "create", f"{host}/{NAME}:{TAG}", *parts]


def _regctl_at(host: str) -> list[str]:
    return [find("regctl"), "--host", f"reg={host},tls=disabled"]


def _part(host: str, key: str) -> str:
    return f"{host}/{NAME}:{key}"


ALBATROS, FAST = Pipeline("albatros", _albatros()), Pipeline("albatros fast", _albatros("--compression", "fast"))
PEERS = (
    Pipeline("skopeo four times + regctl index create", _skopeo),
    Pipeline("crane four times + crane index append", _crane),
    Pipeline("regctl four times + regctl index create", _regctl),
)


def run(pipeline: Pipeline, host: str, archives: Mapping[str, Path], home: Path) -> Cost:
    """Run it to its end, with everything that it remembers in `home`. Raises RuntimeError when a command fails."""
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "DOCKER_CONFIG": str(home)}
    # An installed package has its bytecode, whatever the one who runs the bench thinks of it in a checkout.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(ROOT / "albatros", quiet=1)
    output = home / "output"
    stages = json.dumps(pipeline.stages(host, archives))
    starter = [sys.executable, "-I", "-S", str(ROOT / "bench" / "stages.py"), str(output), stages]
    told = json.loads(subprocess.run(starter, check=True, env=environment, stdout=subprocess.PIPE).stdout)
    if told["failed"]:
        raise RuntimeError(f"{' '.join(told['failed'])} failed:\n{output.read_text(errors='replace')}")
    return Cost(told["wall"], told["cpu"], told["peak_mib"])
