"""The job that Nomad is given: tried once, placed by the system, with the token in a Variable and nowhere else."""

import json
from dataclasses import replace
from typing import cast

import pytest

from albatros.errors import ExecutorError
from albatros.executors.base import StartOrder
from albatros.executors.nomad_job import GROUP, TASK, RunnerSource, job_id, render, variable_path
from albatros.settings import NomadDriver, NomadSettings

ATTEMPT = "0a5f7a52-0000-4000-8000-000000000001"
TOKEN = "the-attempts-token"
RUNNER = RunnerSource("ab" * 32, "")
SECOND = 10**9


def order(system: str = "x86_64-linux", *, trusted: bool = True) -> StartOrder:
    return StartOrder(ATTEMPT, TOKEN, "https://ci.example.org/", system, trusted, 600)


def rendered(settings: NomadSettings | None = None, what: StartOrder | None = None) -> dict[str, object]:
    return dict(render(settings or NomadSettings(), RUNNER, "us", what or order()))


def group(job: dict[str, object]) -> dict[str, object]:
    (only,) = cast("list[dict[str, object]]", job["TaskGroups"])
    assert only["Name"] == GROUP
    return only


def task(job: dict[str, object]) -> dict[str, object]:
    (only,) = cast("list[dict[str, object]]", group(job)["Tasks"])
    assert only["Name"] == TASK
    return only


def constraints(job: dict[str, object]) -> set[str]:
    found = cast("list[dict[str, str]]", job["Constraints"])
    return {f"{item['LTarget']} {item['Operand']} {item['RTarget']}" for item in found}


def test_it_is_tried_once_and_for_a_bounded_time() -> None:
    job = rendered()
    assert (job["ID"], job["Type"]) == (f"alb-{ATTEMPT}", "batch")
    assert job["Meta"] == {"albatros": "us", "attempt": ATTEMPT, "system": "x86_64-linux"}
    only = group(job)
    assert only["RestartPolicy"] == {"Attempts": 0, "Mode": "fail"}
    assert only["ReschedulePolicy"] == {"Attempts": 0, "Unlimited": False}
    assert only["Disconnect"] == {
        "LostAfter": 24 * 3600 * SECOND,
        "Replace": False,
        "Reconcile": "keep_original",
    }
    assert only["MaxRunDuration"] == (600 + 300) * SECOND
    assert (task(job)["KillSignal"], task(job)["KillTimeout"]) == ("SIGINT", 30 * SECOND)


def test_the_token_is_in_no_job() -> None:
    job = rendered()
    assert TOKEN not in json.dumps(job)
    (template,) = cast("list[dict[str, str]]", task(job)["Templates"])
    assert template["EmbeddedTmpl"] == (
        f'{{{{ with nomadVar "nomad/jobs/alb-{ATTEMPT}" }}}}{{{{ .token }}}}{{{{ end }}}}'
    )
    assert (template["ChangeMode"], template["Perms"]) == ("noop", "0400")
    assert variable_path(ATTEMPT) == f"nomad/jobs/alb-{ATTEMPT}"


def test_the_runner_is_pinned_by_its_digest() -> None:
    (artifact,) = cast("list[dict[str, object]]", task(rendered())["Artifacts"])
    assert artifact["GetterSource"] == "https://ci.example.org/runner/albatros-runner.pyz"
    assert artifact["GetterOptions"] == {"checksum": f"sha256:{'ab' * 32}", "archive": "false"}


def test_it_is_placed_by_the_system() -> None:
    kernel = "${attr.kernel.name} = linux"
    assert constraints(rendered()) == {kernel, "${meta.nix_system} set_contains x86_64-linux"}
    assert constraints(rendered(what=order(""))) == {kernel}, "an evaluation runs anywhere"
    by_arch = NomadSettings(place_by="arch", node_class="builders")
    assert constraints(rendered(by_arch, order("armv6l-linux"))) == {
        kernel,
        "${attr.cpu.arch} = arm",
        "${node.class} = builders",
    }


def test_a_strangers_build_needs_a_sandbox() -> None:
    assert "${meta.nix_sandbox} = true" in constraints(rendered(what=order("", trusted=False)))


@pytest.mark.parametrize("driver", list(NomadDriver))
def test_every_driver_starts_the_same_program(driver: NomadDriver) -> None:
    settings = NomadSettings(driver=driver, image="nixos/nix", nix_volume="nix", user="builder")
    job = rendered(settings)
    config = cast("dict[str, object]", task(job)["Config"])
    started = ["python3", "-I", "-S", "${NOMAD_TASK_DIR}/albatros-runner.pyz"]
    assert [config["command"], *cast("list[str]", config["args"])] == started
    assert config.get("image") == ("nixos/nix" if driver in {NomadDriver.DOCKER, NomadDriver.PODMAN} else None)
    assert (task(job)["Driver"], task(job)["User"]) == (driver.value, "builder")
    assert cast("dict[str, dict[str, object]]", group(job)["Volumes"])["nix"]["Source"] == "nix"
    assert task(job)["VolumeMounts"] == [{"Volume": "nix", "Destination": "/nix", "ReadOnly": False}]
    (template,) = cast("list[dict[str, str]]", task(job)["Templates"])
    assert template["Perms"] == "0444", "another user has to read it"


def test_the_settings_are_followed() -> None:
    settings = NomadSettings(
        namespace="ci",
        region="eu",
        datacenters=("a", "b"),
        node_pool="builders",
        priority=70,
        cpu_mhz=9,
        memory_mb=64,
        memory_max_mb=128,
        disk_mb=77,
    )
    job = rendered(settings)
    assert (job["Namespace"], job["Region"], job["Datacenters"]) == ("ci", "eu", ["a", "b"])
    assert (job["NodePool"], job["Priority"]) == ("builders", 70)
    assert task(job)["Resources"] == {"CPU": 9, "MemoryMB": 64, "MemoryMaxMB": 128}
    assert group(job)["EphemeralDisk"] == {"SizeMB": 77}


@pytest.mark.parametrize(("wanted", "given"), [(0, 2048), (512, 512), (4096, 2048), (1, 64)])
def test_a_repo_can_ask_for_less_memory_and_not_for_more(wanted: int, given: int) -> None:
    asked = replace(order(), memory_mb=wanted)
    assert task(rendered(what=asked))["Resources"] == {"CPU": 1000, "MemoryMB": given}


@pytest.mark.parametrize("attempt_id", ["", "x", "../escape", ATTEMPT.upper(), f"{ATTEMPT}/dispatch"])
def test_what_is_no_attempt_names_no_job(attempt_id: str) -> None:
    with pytest.raises(ExecutorError):
        job_id(attempt_id)
