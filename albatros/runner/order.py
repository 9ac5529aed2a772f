"""What the server asks of this runner: the answer to the claim, checked once and typed.

Named tuples and not dataclasses: `dataclasses` would cost a fifth of the time to the first line of log.
"""

from typing import NamedTuple, cast

from albatros.runner.failure import JobFailedError, Reason


class MergeOrder(NamedTuple):
    """What the order's commit is merged into before anything else: a commit, and the branch that it is of."""

    commit: str
    branch: str


class RepoOrder(NamedTuple):
    """The commit to clone and the one credential to clone it with."""

    clone_url: str
    commit: str
    ref: str
    full_name: str
    config_commit: str | None
    username: str | None
    password: str | None
    repo_alone: bool
    """The credential is for this repo, and for nothing else of its host."""
    submodules: bool
    lfs: bool
    merge: MergeOrder | None


class NixOrder(NamedTuple):
    """The Nix settings in force for this Job."""

    sandbox: bool
    sandbox_paths: tuple[str, ...]
    substituters: tuple[str, ...]
    trusted_public_keys: tuple[str, ...]
    import_from_derivation: bool
    extra_systems: tuple[str, ...]
    min_free: int
    max_free: int


class Limits(NamedTuple):
    """Bounds in seconds and bytes; `attributes` is a count."""

    wall_seconds: int
    silence_seconds: int
    log_bytes: int
    memory_bytes: int
    attributes: int
    output_bytes: int


class BuildOrder(NamedTuple):
    """The derivation to build, and which of its files to upload."""

    attribute: str
    drv_path: str
    binaries: tuple[str, ...]
    keep: bool


class ScriptOrder(NamedTuple):
    """What the repo's own program is told: one of `branch` and `tag` at most is not empty; secrets by name."""

    repo_url: str
    branch: str
    tag: str
    flavor: str
    secrets: dict[str, str]


class Order(NamedTuple):
    """One Attempt: an evaluation when `build` and `script` are None."""

    attempt: str
    lease_seconds: int
    repo: RepoOrder
    access_tokens: dict[str, str]
    nix: NixOrder
    limits: Limits
    build: BuildOrder | None
    script: ScriptOrder | None

    def secrets(self) -> list[str]:
        """Values that must not appear in the log."""
        own = self.script.secrets.values() if self.script is not None else ()
        return [value for value in (self.repo.password, *self.access_tokens.values(), *own) if value]


class Fields:
    """Typed reading of a JSON object; a wrong shape raises JobFailedError (driver)."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise JobFailedError(Reason.DRIVER, f"The server's order has no object {where}; update server or runner.")
        self._data = cast("dict[str, object]", value)
        self._where = where

    def _wrong(self, key: str, wanted: str) -> JobFailedError:
        text = f"The server's order is wrong: {self._where}.{key} is not {wanted}; update server or runner."
        return JobFailedError(Reason.DRIVER, text)

    def text(self, key: str) -> str:
        """A string that must be there."""
        value = self._data.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def maybe_text(self, key: str) -> str | None:
        """A string, or None when it is null or missing."""
        return None if self._data.get(key) is None else self.text(key)

    def number(self, key: str) -> int:
        """A positive whole number."""
        value = self._data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise self._wrong(key, "a positive number")
        return value

    def flag(self, key: str) -> bool:
        """A boolean."""
        value = self._data.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._data.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings")
        return tuple(cast("list[str]", value))

    def inner(self, key: str) -> "Fields":
        """An object inside this one."""
        return Fields(self._data.get(key), f"{self._where}.{key}")

    def mapping(self, key: str) -> dict[str, str]:
        """An object from strings to strings."""
        value = self._data.get(key)
        if not isinstance(value, dict) or not all(isinstance(v, str) for pair in value.items() for v in pair):
            raise self._wrong(key, "an object of strings")
        return cast("dict[str, str]", dict(value))

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._data.get(key) is not None


def parse_order(document: object) -> Order:
    """Check and type the answer to the claim. Raises JobFailedError (driver) for a wrong shape."""
    fields = Fields(document, "order")
    kind = fields.text("kind")
    details = {"evaluation": (), "build": ("build",), "script": ("script",)}.get(kind)
    if details is None or tuple(key for key in ("build", "script") if fields.has(key)) != details:
        raise JobFailedError(Reason.DRIVER, f"This runner does not know Jobs of kind {kind!r}; update it.")
    return Order(
        attempt=fields.text("attempt"),
        lease_seconds=fields.number("lease_seconds"),
        repo=_repo(fields.inner("repo")),
        access_tokens=fields.mapping("access_tokens"),
        nix=_nix(fields.inner("nix")),
        limits=_limits(fields.inner("limits")),
        build=_build(fields.inner("build")) if kind == "build" else None,
        script=_script(fields.inner("script")) if kind == "script" else None,
    )


def _repo(fields: Fields) -> RepoOrder:
    return RepoOrder(
        clone_url=fields.text("clone_url"),
        commit=fields.text("commit"),
        ref=fields.text("ref"),
        full_name=fields.text("full_name"),
        config_commit=fields.maybe_text("config_commit"),
        username=fields.maybe_text("username"),
        password=fields.maybe_text("password"),
        repo_alone=fields.flag("repo_alone"),
        submodules=fields.flag("submodules"),
        lfs=fields.flag("lfs"),
        merge=_merge(fields.inner("merge")) if fields.has("merge") else None,
    )


def _merge(fields: Fields) -> MergeOrder:
    return MergeOrder(commit=fields.text("commit"), branch=fields.text("branch"))


def _nix(fields: Fields) -> NixOrder:
    return NixOrder(
        sandbox=fields.flag("sandbox"),
        sandbox_paths=fields.texts("sandbox_paths"),
        substituters=fields.texts("substituters"),
        trusted_public_keys=fields.texts("trusted_public_keys"),
        import_from_derivation=fields.flag("import_from_derivation"),
        extra_systems=fields.texts("extra_systems"),
        min_free=fields.number("min_free"),
        max_free=fields.number("max_free"),
    )


def _limits(fields: Fields) -> Limits:
    return Limits(
        wall_seconds=fields.number("wall_seconds"),
        silence_seconds=fields.number("silence_seconds"),
        log_bytes=fields.number("log_bytes"),
        memory_bytes=fields.number("memory_bytes"),
        attributes=fields.number("attributes"),
        output_bytes=fields.number("output_bytes"),
    )


def _build(fields: Fields) -> BuildOrder:
    return BuildOrder(
        attribute=fields.text("attribute"),
        drv_path=fields.text("drv_path"),
        binaries=fields.texts("binaries"),
        keep=fields.flag("keep"),
    )


def _script(fields: Fields) -> ScriptOrder:
    return ScriptOrder(
        repo_url=fields.text("repo_url"),
        branch=fields.text("branch"),
        tag=fields.text("tag"),
        flavor=fields.text("flavor"),
        secrets=fields.mapping("secrets"),
    )
