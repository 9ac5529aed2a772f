"""The Nomad job of one Attempt. Nothing in it comes from a repo but the derivation's system, which has been checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from albatros.errors import ExecutorError
from albatros.executors.base import StartOrder
from albatros.executors.nomad_json import Document
from albatros.settings import NomadDriver, NomadSettings

PREFIX = "alb-"
VARIABLES = "nomad/jobs/"
GROUP, TASK = "runner", "executor"
TOKEN_ITEM = "token"  # noqa: S105 - the name of an item, and no secret
INSTALLATION, ATTEMPT, SYSTEM = "albatros", "attempt", "system"
"""Keys of a job's meta."""
SECOND = 10**9
"""Durations in Nomad's JSON are nanoseconds."""
LOST_AFTER = 24 * 3600
KILL_SECONDS = 30
LEAST_MEMORY_MB = 64
"""With less, no Python starts that could say so."""
GRACE_SECONDS = 300
"""Beyond the wall clock of an Attempt, for what comes before and after it: then Nomad ends it."""
ARCHITECTURES = {"x86_64": "amd64", "i686": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm"}
"""Nomad's `cpu.arch`, which is Go's, by the processor in a Nix system."""
_ATTEMPT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class RunnerSource:
    """The runner as every node fetches it: its SHA-256 in hexadecimal pins what it gets."""

    sha256: str
    nix_remote: str
    """`executor.nix_store` for the runner; empty: it chooses."""


def job_id(attempt_id: str) -> str:
    """The id of an Attempt's job. Raises ExecutorError for what is no UUID."""
    if not _ATTEMPT_ID.fullmatch(attempt_id):
        raise ExecutorError(f"{attempt_id!r} cannot name a Nomad job")
    return PREFIX + attempt_id


def variable_path(attempt_id: str) -> str:
    """Where the Attempt's token lies: the job's own workload identity may read there, and no other job's."""
    return VARIABLES + job_id(attempt_id)


def render(settings: NomadSettings, runner: RunnerSource, installation: str, order: StartOrder) -> Document:
    """The job as `POST /v1/jobs` takes it. It is tried once: what follows a failure is decided by the server."""
    name = job_id(order.attempt_id)
    group: dict[str, object] = {
        "Name": GROUP,
        "Count": 1,
        "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
        "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
        "Disconnect": {"LostAfter": LOST_AFTER * SECOND, "Replace": False, "Reconcile": "keep_original"},
        "MaxRunDuration": (order.limit_seconds + GRACE_SECONDS) * SECOND,
        "EphemeralDisk": {"SizeMB": settings.disk_mb},
        "Tasks": [_task(settings, runner, order)],
    }
    if settings.nix_volume:
        group["Volumes"] = {"nix": {"Name": "nix", "Type": "host", "Source": settings.nix_volume, "ReadOnly": False}}
    return {
        "ID": name,
        "Name": name,
        "Type": "batch",
        "Namespace": settings.namespace,
        **({"Region": settings.region} if settings.region else {}),
        "Datacenters": list(settings.datacenters),
        "NodePool": settings.node_pool,
        "Priority": settings.priority,
        "Meta": {INSTALLATION: installation, ATTEMPT: order.attempt_id, SYSTEM: order.system},
        "Constraints": _constraints(settings, order),
        "TaskGroups": [group],
    }


def _constraints(settings: NomadSettings, order: StartOrder) -> list[Document]:
    found = [_constraint("${attr.kernel.name}", "=", "linux")]
    if order.system and settings.place_by == "meta":
        found.append(_constraint("${meta.nix_system}", "set_contains", order.system))
    elif order.system:
        processor = order.system.partition("-")[0]
        found.append(_constraint("${attr.cpu.arch}", "=", ARCHITECTURES.get(processor, processor)))
    if settings.node_class:
        found.append(_constraint("${node.class}", "=", settings.node_class))
    if not order.trusted:
        found.append(_constraint("${meta.nix_sandbox}", "=", "true"))
    return found


def _constraint(left: str, operand: str, right: str) -> Document:
    return {"LTarget": left, "Operand": operand, "RTarget": right}


def _task(settings: NomadSettings, runner: RunnerSource, order: StartOrder) -> Document:
    task: dict[str, object] = {
        "Name": TASK,
        "Driver": settings.driver.value,
        "Config": _config(settings),
        "Env": {
            "ALBATROS_URL": order.server_url,
            "ALBATROS_ATTEMPT": order.attempt_id,
            "ALBATROS_WORKDIR": "${NOMAD_TASK_DIR}",
            "ALBATROS_TOKEN_FILE": "${NOMAD_SECRETS_DIR}/token",
            "ALBATROS_NIX_REMOTE": _nix_remote(runner.nix_remote),
            "HOME": "${NOMAD_TASK_DIR}",
            "USER": "albatros",
            "LANG": "C.UTF-8",
        },
        "Artifacts": [
            {
                "GetterSource": f"{order.server_url.rstrip('/')}/runner/albatros-runner.pyz",
                "GetterMode": "file",
                "GetterOptions": {"checksum": f"sha256:{runner.sha256}", "archive": "false"},
                "RelativeDest": "local/albatros-runner.pyz",
            }
        ],
        "Templates": [_token_template(settings, order)],
        "Resources": _resources(settings, order),
        "KillSignal": "SIGINT",
        "KillTimeout": KILL_SECONDS * SECOND,
    }
    if settings.user:
        task["User"] = settings.user
    if settings.nix_volume:
        task["VolumeMounts"] = [{"Volume": "nix", "Destination": "/nix", "ReadOnly": False}]
    return task


def _resources(settings: NomadSettings, order: StartOrder) -> Document:
    """What the operator gives; a repo can ask for less."""
    if 0 < order.memory_mb < settings.memory_mb:
        return {"CPU": settings.cpu_mhz, "MemoryMB": max(order.memory_mb, LEAST_MEMORY_MB)}
    more = {"MemoryMaxMB": settings.memory_max_mb} if settings.memory_max_mb else {}
    return {"CPU": settings.cpu_mhz, "MemoryMB": settings.memory_mb, **more}


def _config(settings: NomadSettings) -> Document:
    started = {"command": "python3", "args": ["-I", "-S", "${NOMAD_TASK_DIR}/albatros-runner.pyz"]}
    if settings.driver in {NomadDriver.DOCKER, NomadDriver.PODMAN}:
        return {"image": settings.image, **started}
    return started


def _token_template(settings: NomadSettings, order: StartOrder) -> Document:
    """The token in a file that the runner takes away; `noop`, since any other mode would restart the build."""
    path = variable_path(order.attempt_id)
    # As the user of the agent, the task reads what only that one can; under another it has to be let in.
    own = settings.driver is NomadDriver.RAW_EXEC and not settings.user
    return {
        "EmbeddedTmpl": f'{{{{ with nomadVar "{path}" }}}}{{{{ .{TOKEN_ITEM} }}}}{{{{ end }}}}',
        "DestPath": "secrets/token",
        "Perms": "0400" if own else "0444",
        "ChangeMode": "noop",
    }


def _nix_remote(wanted: str) -> str:
    return "local?root=${NOMAD_TASK_DIR}/nix-root" if wanted == "private" else wanted
