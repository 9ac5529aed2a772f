"""Adapters, each built from its settings."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from albatros.domain.references import RegistryUrl
from albatros.errors import ConfigError
from albatros.executors.base import Executor
from albatros.executors.builder_base import Builder
from albatros.executors.local import LocalExecutor
from albatros.forges.base import ForgeAdapter, Hooks, Login
from albatros.forges.git import GitForge
from albatros.forges.git_hooks import GitHooks
from albatros.forges.gitea import GiteaForge
from albatros.forges.gitea_hooks import GiteaHooks
from albatros.forges.github import GithubForge
from albatros.forges.github_hooks import GithubHooks
from albatros.forges.gitlab import GitlabForge
from albatros.forges.gitlab_hooks import GitlabHooks
from albatros.forges.oauth import OAuthLogin
from albatros.http.deps import RunnerBundle
from albatros.registries.base import Credentials, Registry
from albatros.registries.opening import open_registry
from albatros.settings import BuilderSettings, ExecutorKind, ForgeKind, ForgeSettings, RegistrySettings, Settings
from albatros.store.base import BlobStore
from albatros.store.files import FileStore


class ServerExecutor(Executor, Protocol):
    """An executor as a server uses it."""

    @property
    def takes_strangers(self) -> bool:
        """Whether its runners are shut off well enough for what nobody trusted has pushed."""
        ...

    def warnings(self) -> list[str]:
        """What an operator should know of how Jobs run there."""
        ...


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What tells one server, and the servers of one database, from others: its id, and the key that they share."""

    server_id: str
    key: bytes

    @property
    def installation(self) -> str:
        """Names the servers that share a database: it marks what is theirs where others are too."""
        return hmac.new(self.key, b"installation", hashlib.sha256).hexdigest()[:16]


def build_executor(
    settings: Settings,
    identity: ServerIdentity,
    bundle: RunnerBundle,
    private: Sequence[Path],
    on_end: Callable[[], None],
) -> ServerExecutor:
    """Where the settings say that Jobs run; `on_end` is called when a runner ended. Raises ConfigError."""
    match settings.executor.kind:
        case ExecutorKind.LOCAL:
            data = settings.server.data
            return LocalExecutor(identity.server_id, settings.executor, data, bundle.content, private, on_end)
        case ExecutorKind.NOMAD:
            # Imported when it is asked for: its client brings requests.
            from albatros.executors.nomad import NomadExecutor  # noqa: PLC0415
            from albatros.executors.nomad_job import RunnerSource  # noqa: PLC0415

            source = RunnerSource(hashlib.sha256(bundle.content).hexdigest(), settings.executor.nix_store)
            return NomadExecutor(settings.nomad, source, identity.installation, on_end)


def build_builder(settings: Settings, item: BuilderSettings) -> Builder:
    """What dispatches to a builder, on connections of its own. Raises ConfigError."""
    # Imported when it is asked for, as above.
    from albatros.executors.nomad_builder import NomadBuilder  # noqa: PLC0415

    namespace = item.namespace or settings.nomad.namespace
    return NomadBuilder(settings.nomad.model_copy(update={"namespace": namespace}), item.job)


def open_store(settings: Settings) -> BlobStore:
    """The blob store that the settings name. Raises ConfigError or StoreError."""
    scheme, _, path = settings.store_url.partition(":")
    if scheme != "dir" or not path:
        raise ConfigError(f"store.url = {settings.store_url!r} is not supported; use dir:PATH")
    return FileStore(Path(path))


def build_forge(item: ForgeSettings) -> ForgeAdapter:
    """The adapter of a configured forge."""
    match item.kind:
        case ForgeKind.GIT:
            return GitForge(item)
        case ForgeKind.GITEA | ForgeKind.FORGEJO:
            return GiteaForge(item)
        case ForgeKind.GITHUB:
            return GithubForge(item)
        case ForgeKind.GITLAB:
            return GitlabForge(item)


def build_logins(items: Sequence[ForgeSettings]) -> dict[str, Login]:
    """What people log in with."""
    return {item.name: OAuthLogin(item) for item in items if item.oauth_client_id}


def build_hooks(item: ForgeSettings) -> Hooks:
    """What manages the webhooks of a configured forge."""
    match item.kind:
        case ForgeKind.GIT:
            return GitHooks(item)
        case ForgeKind.GITEA | ForgeKind.FORGEJO:
            return GiteaHooks(item)
        case ForgeKind.GITHUB:
            return GithubHooks(item)
        case ForgeKind.GITLAB:
            return GitlabHooks(item)


def registry_opener(item: RegistrySettings) -> Callable[[], Registry]:
    """Opens a configured registry. Raises UsageError for an unusable address."""
    url = RegistryUrl.parse(item.url)
    credentials = None
    if item.username:
        origin = f"[[registries]] {item.name}"
        credentials = Credentials(item.username, item.password.get_secret_value(), origin)
    return partial(open_registry, url, credentials)
