"""Every setting with its type, default and meaning; `docs/reference/settings.md` is generated from this package."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from albatros.settings.base import GIB, MIB, Bytes, Name, Seconds, Section
from albatros.settings.executors import BuilderSettings, ExecutorKind, ExecutorSettings, NomadSettings


class ForgeKind(StrEnum):
    """Kinds of forge that can be configured."""

    GITEA = "gitea"
    FORGEJO = "forgejo"
    GITHUB = "github"
    GITLAB = "gitlab"
    GIT = "git"


class ServerSettings(Section):
    """`[server]`: where it listens, how others reach it, where it keeps its data."""

    listen: str = Field("127.0.0.1:8080", description="address and port; port 0 takes a free one")
    url: str = Field("", description="how forges, runners and people reach the server; default: http:// and `listen`")
    data: Path = Field(Path("/var/lib/albatros"), description="SQLite, blobs and keys when nothing else is named")
    keys: str = Field(
        "", description="directory of the keys, the same on all servers of a database; default: `keys` in `server.data`"
    )
    public: bool = Field(False, description="public repos are readable without a token")
    trusted_proxies: tuple[str, ...] = Field((), description="addresses or networks whose X-Forwarded-* are believed")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_json: bool = Field(False, description="log JSON lines")


class DatabaseSettings(Section):
    """`[database]`: the queue and the truth."""

    url: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL; default: SQLite in `server.data`")


class StoreSettings(Section):
    """`[store]`: where blobs are kept."""

    url: str = Field("", description="`dir:PATH`; default: `blobs` in `server.data`")


class ForgeSettings(Section):
    """`[[forges]]`: a place that repos live on."""

    name: Name = Field(description="its name in URLs: /webhooks/NAME")
    kind: ForgeKind = Field(description="gitea, forgejo, github, gitlab or git")
    url: str = Field(description="base URL; for `git` the directory that holds the bare repositories")
    token: SecretStr = Field(
        SecretStr(""), description="API token: statuses, webhooks; and clones, without `clone_token`"
    )
    clone_token: SecretStr = Field(
        SecretStr(""), description="what runners clone private repos with, read only; default: `token`"
    )
    webhook_secret: SecretStr = Field(
        description="key of the webhook signature (HMAC-SHA256); for GitLab its signing token (`whsec_…`)"
    )
    oauth_client_id: str = Field("", description="lets people log in with this forge: the id of an OAuth2 application")
    oauth_client_secret: SecretStr = Field(SecretStr(""), description="secret of the OAuth2 application")
    app_id: str = Field("", description="GitHub: the id of a GitHub App, which makes what runners clone with")
    app_key: SecretStr = Field(SecretStr(""), description="private key (PEM) of the GitHub App")
    repos: tuple[str, ...] = Field((), description="globs of owner/name that may build")
    scripts: tuple[str, ...] = Field(
        (), description="globs of owner/name whose `.albatros` runs, outside of any sandbox; default: none"
    )
    merges: bool = Field(
        False, description="build merge results of pull requests where the base's `.albatros.toml` has no `on.merge`"
    )
    submodules: bool = Field(False, description="clone submodules")
    lfs: bool = Field(False, description="fetch Git LFS objects")
    flake_tokens: dict[str, SecretStr] = Field({}, description="token per host for private flake inputs")

    @property
    def cloning_token(self) -> str:
        """What runners clone with; empty where that takes none."""
        return self.clone_token.get_secret_value() or self.token.get_secret_value()

    @field_validator("webhook_secret")
    @classmethod
    def _secret_is_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 6:
            raise ValueError("webhook_secret must have at least 6 characters: anybody could sign with a shorter one")
        return value

    @model_validator(mode="after")
    def _app_is_whole(self) -> ForgeSettings:
        if bool(self.app_id) != bool(self.app_key.get_secret_value()):
            raise ValueError("app_id and app_key belong together: set both, or neither")
        if self.app_id and self.kind is not ForgeKind.GITHUB:
            raise ValueError("app_id is a GitHub App's: take it away, or set kind to github")
        return self

    @model_validator(mode="after")
    def _login_is_whole(self) -> ForgeSettings:
        if bool(self.oauth_client_id) != bool(self.oauth_client_secret.get_secret_value()):
            raise ValueError("oauth_client_id and oauth_client_secret belong together: set both, or neither")
        if self.oauth_client_id and self.kind is ForgeKind.GIT:
            raise ValueError("nobody can log in with bare repositories: take oauth_client_id away")
        return self


class OperatorSettings(Section):
    """`[[operators]]`: people who are admin of the whole server, whatever their forge lets them do."""

    forge: Name = Field(description="the forge that they log in with")
    login: str = Field(min_length=1, description="their name there; case does not matter")
    id: int = Field(
        0, ge=0, description="the forge's number of them, which decides alone; 0: of the first who logs in as `login`"
    )


class RegistrySettings(Section):
    """`[[registries]]`: a place that images are published to."""

    name: Name = Field(description="its name in pages, events and .albatros.toml")
    url: str = Field(
        description="docker://HOST/PREFIX, dir:PATH or s3://BUCKET/PREFIX?endpoint=URL&region=R&s3ForcePathStyle=true"
    )
    username: str = Field("", description="user for docker://, id of the key for s3://")
    password: SecretStr = Field(
        SecretStr(""), description="password or token for docker://, secret of the key for s3://"
    )
    public: bool = Field(True, description="anyone can pull from it: private repos stay away")
    names: tuple[str, ...] = Field(
        ("{owner}/{repo}",), description="image names a repo may publish, and what is below them"
    )
    repos: tuple[str, ...] = Field(("*/*",), description="globs of owner/name that may publish")
    refs: tuple[str, ...] = Field(("refs/heads/*", "refs/tags/*"), description="globs of refs that publish")
    required: bool = Field(True, description="a Build is green only when this Publication is done")


class SigningSettings(Section):
    """`[signing]`: what is said about images that are published, and the key that says it."""

    key: SecretStr = Field(SecretStr(""), description="private key in PEM (ECDSA P-256); without one nothing is signed")
    passphrase: SecretStr = Field(SecretStr(""), description="of an encrypted key")
    sbom: bool = Field(False, description="attach a bill of materials (CycloneDX) to each image")
    provenance: bool = Field(False, description="attach SLSA provenance to each image; signed if there is a key")


class RetentionSettings(Section):
    """`[retention]`: what `albatros gc` and the collector take away."""

    builds_days: int = Field(90, ge=1, description="days that an ended Build is kept")
    keep_builds: int = Field(
        20, ge=1, description="newest Builds of each repo and ref that are always kept, as is the newest green one"
    )
    logs_days: int = Field(30, ge=1, description="days that logs of ended Builds are kept")
    artifacts_days: int = Field(
        30,
        ge=1,
        description="days that Artifacts and the bytes of published images are kept; "
        "those of a ref's newest Build and of its newest green one stay",
    )
    deliveries_days: int = Field(30, ge=1, description="days that the bodies of Deliveries are kept")
    interval_seconds: Seconds = Field(3600, description="between two runs of the collector")


class LimitSettings(Section):
    """`[limits]`: bounds on everything that comes from outside."""

    webhook_bytes: Bytes = Field(25 * MIB, description="largest webhook body")
    job_seconds: Seconds = Field(3600, description="wall clock of one Attempt")
    silence_seconds: Seconds = Field(900, description="longest time without a line of log")
    log_bytes: Bytes = Field(16 * MIB, description="log kept of one Attempt: its head and its tail")
    evaluation_bytes: Bytes = Field(4 * GIB, description="memory of an evaluation")
    attributes: int = Field(1000, ge=1, description="attributes one flake may have")
    output_bytes: Bytes = Field(4 * GIB, description="uploads of one Attempt, and the size of one unpacked image")
    attempts: int = Field(3, ge=1, description="tries at a Job when infrastructure fails")
    publication_attempts: int = Field(20, ge=1, description="tries at a Publication before it fails")
    lease_seconds: Seconds = Field(30, description="a runner that is silent for this long is lost")
    queued_builds: int = Field(100_000, ge=1, description="open Builds before webhooks are answered 503")


class Settings(Section):
    """All settings of a server."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    store: StoreSettings = StoreSettings()
    executor: ExecutorSettings = ExecutorSettings()
    nomad: NomadSettings = NomadSettings()
    forges: tuple[ForgeSettings, ...] = ()
    builders: tuple[BuilderSettings, ...] = ()
    operators: tuple[OperatorSettings, ...] = ()
    registries: tuple[RegistrySettings, ...] = ()
    signing: SigningSettings = SigningSettings()
    retention: RetentionSettings = RetentionSettings()
    limits: LimitSettings = LimitSettings()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Settings:
        for kind, names in (
            ("forges", [f.name for f in self.forges]),
            ("builders", [b.name for b in self.builders]),
            ("registries", [r.name for r in self.registries]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"two {kind} are named {min(twice)!r}: give each a name of its own")
        return self

    @model_validator(mode="after")
    def _operators_have_a_forge(self) -> Settings:
        known = {forge.name for forge in self.forges}
        for one in self.operators:
            if one.forge not in known:
                raise ValueError(f"the operator {one.login!r} is of forge {one.forge!r}, which no [[forges]] is named")
        return self

    @model_validator(mode="after")
    def _builders_have_a_forge(self) -> Settings:
        known = {forge.name for forge in self.forges}
        for one in self.builders:
            if one.forge not in known:
                raise ValueError(f"the builder {one.name!r} is for forge {one.forge!r}, which no [[forges]] is named")
        return self

    @model_validator(mode="after")
    def _logins_lead_back(self) -> Settings:
        if not self.server.url and any(forge.oauth_client_id for forge in self.forges):
            raise ValueError("set server.url: forges.oauth_client_id lets people log in, and they are sent back there")
        return self

    @model_validator(mode="after")
    def _runners_reach_it_safely(self) -> Settings:
        parts = urlsplit(self.base_url)
        if self.executor.kind is ExecutorKind.NOMAD and parts.scheme != "https" and not _is_loopback(parts.hostname):
            raise ValueError(
                f"executor.kind = 'nomad' needs server.url to be https://, and it is {self.base_url}: runners send "
                "tokens and fetch private sources through it; put a proxy with a certificate in front of the server"
            )
        return self

    @property
    def base_url(self) -> str:
        """The server's address in force, for forges and people, without a slash at its end."""
        return self.server.url.rstrip("/") or f"http://{self.server.listen}"

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database.url.get_secret_value() or f"sqlite:///{self.server.data / 'albatros.sqlite3'}"

    @property
    def store_url(self) -> str:
        """The blob store's URL in force."""
        return self.store.url or f"dir:{self.server.data / 'blobs'}"

    @property
    def keys(self) -> Path:
        """The directory of the keys in force."""
        return Path(self.server.keys) if self.server.keys else self.server.data / "keys"

    @property
    def secrets_key(self) -> Path:
        """The key file of secrets in the database."""
        return self.keys / "secrets.key"

    def secrets(self) -> list[str]:
        """Every secret value, for masking in logs."""
        found: list[SecretStr] = []
        for forge in self.forges:
            found += [forge.token, forge.clone_token, forge.webhook_secret, forge.oauth_client_secret, forge.app_key]
            found += forge.flake_tokens.values()
        found += [registry.password for registry in self.registries]
        found += [self.signing.key, self.signing.passphrase, self.nomad.token]
        values = [secret.get_secret_value() for secret in found]
        password = urlsplit(self.database.url.get_secret_value()).password or ""
        return [value for value in (*values, password, unquote(password)) if value]


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return host is not None and ip_address(host).is_loopback
    except ValueError:
        return False


_SECTIONS: dict[str, type[BaseModel]] = {
    "server": ServerSettings,
    "database": DatabaseSettings,
    "store": StoreSettings,
    "executor": ExecutorSettings,
    "nomad": NomadSettings,
    "forges": ForgeSettings,
    "builders": BuilderSettings,
    "operators": OperatorSettings,
    "registries": RegistrySettings,
    "signing": SigningSettings,
    "retention": RetentionSettings,
    "limits": LimitSettings,
}


def sections() -> Mapping[str, type[BaseModel]]:
    """Every section with its model."""
    return dict(_SECTIONS)


def known_keys(location: tuple[int | str, ...] = ()) -> list[str]:
    """The keys that may stand at a place of the file: `()` for the sections, `("server",)` for one section."""
    model = _SECTIONS.get(str(location[0])) if location else Settings
    return list(model.model_fields) if model else []
