"""Settings of where Jobs run: beside the server, on a Nomad cluster, or in a builder of the operator's own."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from albatros.settings.base import GIB, Bytes, Name, Section


class ShutdownMode(StrEnum):
    """What Ctrl-C does with running builds."""

    HAND_BACK = "hand_back"
    FINISH = "finish"


class ExecutorKind(StrEnum):
    """Where Jobs can run."""

    LOCAL = "local"
    NOMAD = "nomad"


class ExecutorSettings(Section):
    """`[executor]`: where and how Jobs run."""

    kind: ExecutorKind = Field(ExecutorKind.LOCAL, description="`local`: beside the server; `nomad`: on a cluster")
    slots: int = Field(2, ge=1, le=256, description="Jobs that run at once beside the server")
    user: str = Field("", description="user of the local runner; default: albatros-runner, else the number 64198")
    sandbox: bool = Field(True, description="build in Nix's sandbox; false refuses builds for strangers")
    sandbox_paths: tuple[str, ...] = Field((), description="host paths that every builder sees")
    substituters: tuple[str, ...] = Field((), description="binary caches that Nix may ask")
    trusted_public_keys: tuple[str, ...] = Field((), description="keys of the substituters")
    import_from_derivation: bool = Field(False, description="let evaluation build, for trusted senders")
    extra_systems: tuple[str, ...] = Field((), description="systems that this machine builds beside its own")
    min_free: Bytes = Field(
        2 * GIB,
        description="a runner's own store is collected when its disk has less free (a nix-daemon: its own nix.conf)",
    )
    max_free: Bytes = Field(10 * GIB, description="a collection ends when so much is free")
    nix_store: str = Field(
        "", description="`private` (a store of the runner's own) or a NIX_REMOTE; default: the nix-daemon, else private"
    )
    allow_unisolated_scripts: bool = Field(
        False, description="run `.albatros` where it could read what belongs to other repos' Jobs on the machine"
    )
    shutdown: ShutdownMode = Field(ShutdownMode.HAND_BACK, description="`hand_back` or `finish` running Jobs at Ctrl-C")


class NomadDriver(StrEnum):
    """Task drivers that can run the runner."""

    RAW_EXEC = "raw_exec"
    EXEC = "exec"
    DOCKER = "docker"
    PODMAN = "podman"


class NomadSettings(Section):
    """`[nomad]`: the cluster that Jobs run on, with `executor.kind = "nomad"`."""

    addresses: tuple[str, ...] = Field(
        ("http://127.0.0.1:4646",), min_length=1, description="URLs of Nomad's servers; one that fails is passed over"
    )
    namespace: str = Field("default", description="namespace of the jobs")
    region: str = Field("", description="region of the jobs; default: that of the server that answers")
    datacenters: tuple[str, ...] = Field(("*",), min_length=1, description="datacenters that may run Jobs")
    node_pool: str = Field("default", description="node pool that may run Jobs")
    node_class: str = Field("", description="class of the nodes that may run Jobs; default: any")
    place_by: Literal["meta", "arch"] = Field(
        "meta",
        description="how a node tells its Nix systems: `meta`: in its meta `nix_system`, such as "
        "x86_64-linux,i686-linux; `arch`: by its processor",
    )
    token: SecretStr = Field(SecretStr(""), description="ACL token")
    without_acl: bool = Field(False, description="use a Nomad that has ACLs off, where everybody may do everything")
    ca_file: str = Field("", description="certificates (PEM) that sign those of Nomad's servers; default: the system's")
    cert_file: str = Field("", description="our own certificate (PEM), for mTLS")
    key_file: str = Field("", description="its key (PEM)")
    driver: NomadDriver = Field(NomadDriver.RAW_EXEC, description="`raw_exec`, `exec`, `docker` or `podman`")
    user: str = Field(
        "",
        description="user of the task; default: the driver's. With raw_exec it has to be let through the data_dir of "
        "Nomad's clients (chmod 711)",
    )
    image: str = Field("", description="container image with python3, git and nix, for docker and podman")
    nix_volume: str = Field("", description="host volume that is mounted at /nix; default: what is there")
    cpu_mhz: int = Field(1000, ge=1, description="processor share of a Job, in MHz")
    memory_mb: int = Field(2048, ge=16, description="memory of a Job, in MiB")
    memory_max_mb: int = Field(0, ge=0, description="memory that a Job may use where there is some left, in MiB")
    disk_mb: int = Field(300, ge=10, description="disk of a Job's own directory, in MiB")
    priority: int = Field(50, ge=1, le=100, description="priority of the jobs")
    queue_percent: int = Field(
        20, ge=0, le=1000, description="Jobs that may wait in Nomad, of those that run there, in percent"
    )
    ui_url: str = Field("", description="Nomad's web pages, for links; default: the first address")

    @model_validator(mode="after")
    def _parts_belong_together(self) -> NomadSettings:
        if self.ui_url and urlsplit(self.ui_url).scheme not in {"http", "https"}:
            raise ValueError("nomad.ui_url is no http:// or https:// URL")
        for address in self.addresses:
            parts = urlsplit(address)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
                raise ValueError(f"nomad.addresses: {parts.hostname or '?'} is no http:// or https:// URL of a server")
        if self.driver in {NomadDriver.DOCKER, NomadDriver.PODMAN} and not self.image:
            raise ValueError(f"nomad.driver = {self.driver.value!r} needs nomad.image: one with python3, git and nix")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("nomad.cert_file and nomad.key_file belong together: set both, or neither")
        return self


class BuilderSettings(Section):
    """`[[builders]]`: repos that a parameterized Nomad job of your own builds, instead of evaluating their flake."""

    name: Name = Field(description="its name in pages and in the commit status of its failure")
    job: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,128}$",
        description="id of the parameterized job: meta keys REPO_URL, COMMIT, BRANCH and FLAVOR, "
        "a group `runner` with a task `executor`",
    )
    namespace: str = Field(
        "", pattern=r"^[A-Za-z0-9-]{0,128}$", description="its namespace; default: `nomad.namespace`"
    )
    forge: Name = Field(description="the forge that its repos are on")
    repos: tuple[str, ...] = Field(min_length=1, description="globs of owner/name that it builds")
    refs: tuple[str, ...] = Field(
        ("refs/heads/*",), description="globs of refs that it builds; a tag's BRANCH is its whole ref, refs/tags/NAME"
    )
    slots: int = Field(2, ge=1, le=256, description="Builds that it runs at once")
