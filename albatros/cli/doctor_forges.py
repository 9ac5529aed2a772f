"""What `albatros doctor` says of a server's forges: that each can reach the server, and what runners are given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from albatros.errors import AlbatrosError

if TYPE_CHECKING:
    from albatros.db.models import Repo
    from albatros.db.session import Database
    from albatros.forges.base import Hooks
    from albatros.settings import ForgeSettings, Settings

ARRIVAL_SECONDS = 20.0
LOOK_SECONDS = 0.25


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Works, and an operator should know."""
    MISSING = "missing"
    """Does not work; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer."""

    verdict: Verdict
    subject: str
    text: str


def check(loaded: Settings, forge: ForgeSettings, hooks: Hooks) -> Iterator[Finding]:
    """The address of the server, the credential for clones, and a test delivery of a repo that was added."""
    subject = f"forge {forge.name}"
    yield from (Finding(verdict, subject, text) for verdict, text in _address(loaded, forge))
    if forge.token.get_secret_value() and not forge.clone_token.get_secret_value() and not _makes_its_own(forge):
        yield Finding(
            Verdict.NOTE, subject, "runners clone with forges.token, which may write: set forges.clone_token to one "
            "that may only read",
        )  # fmt: skip
    try:
        verdict, text = _delivery(loaded, forge.name, hooks)
    except AlbatrosError as error:
        verdict, text = Verdict.MISSING, error.detail
    yield Finding(verdict, subject, text)


def _makes_its_own(forge: ForgeSettings) -> bool:
    """Whether runners clone with a credential that the forge makes for one repo."""
    from albatros.settings import ForgeKind

    return (forge.kind is ForgeKind.GITLAB or bool(forge.app_id)) and not forge.submodules


def _address(loaded: Settings, forge: ForgeSettings) -> Iterator[tuple[Verdict, str]]:
    """What is wrong with `server.url`, seen from the forge."""
    from albatros.settings import ForgeKind

    url, there = urlsplit(loaded.base_url), urlsplit(forge.url).hostname or ""
    if forge.kind is ForgeKind.GIT or _is_local(there):
        return
    if _is_local(url.hostname or ""):
        yield (
            Verdict.MISSING,
            f"{there} cannot reach {loaded.base_url}: set server.url to the https address that your proxy passes on",
        )
    elif url.scheme != "https":
        yield (
            Verdict.NOTE,
            f"webhooks to {loaded.base_url} can be read on their way: have a proxy speak TLS, and set server.url to it",
        )


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _delivery(loaded: Settings, forge: str, hooks: Hooks) -> tuple[Verdict, str]:
    """Have the forge send a test, and see it arrive in the server's database."""
    from albatros.db import migrate
    from albatros.db.session import connect
    from albatros.flows.join import look, webhook_url
    from albatros.forges.base import HookState

    if migrate.current(loaded.database_url) != migrate.head():
        return Verdict.NOTE, "whether it reaches the server can be tested once the server runs"
    database = connect(loaded.database_url)
    try:
        repo = _added_repo(database, forge)
        if repo is None:
            return Verdict.NOTE, "no repo was added yet; `albatros repo add` one, and whether webhooks arrive is tested"
        hook = look(loaded, hooks, repo)
        if hook.state is not HookState.READY:
            return Verdict.MISSING, f"{repo.full_name}: {hook.text}; run `albatros repo add {forge}/{repo.full_name}`"
        url = webhook_url(loaded, forge)
        before = _newest_delivery(database, forge)
        if not hooks.ring(repo.owner, repo.name, url):
            return Verdict.NOTE, f"{repo.full_name} has no commit to test its webhook with"
        if _arrives(database, forge, before):
            return Verdict.OK, f"a test of {repo.full_name} arrived at {url}"
    finally:
        database.dispose()
    return Verdict.MISSING, (
        f"a test of {repo.full_name} did not arrive at {url} within {ARRIVAL_SECONDS:.0f} s: is the server running, "
        "does the address lead to it, and may the forge call it (Gitea: [webhook] ALLOWED_HOST_LIST; GitLab: outbound "
        "requests in the admin area)? The webhook's page on the forge shows what it was answered"
    )


def _added_repo(database: Database, forge: str) -> Repo | None:
    """The repo that was added last."""
    from sqlalchemy import select

    from albatros.db.models import Repo

    with database.read() as session:
        added = select(Repo).where(Repo.forge == forge, Repo.allowed)
        return session.scalar(added.order_by(Repo.id.desc()).limit(1))


def _newest_delivery(database: Database, forge: str) -> int:
    from sqlalchemy import func, select

    from albatros.db.models import Delivery

    with database.read() as session:
        return session.scalar(select(func.max(Delivery.id)).where(Delivery.forge == forge)) or 0


def _arrives(database: Database, forge: str, before: int) -> bool:
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while time.monotonic() < deadline:
        if _newest_delivery(database, forge) > before:
            return True
        time.sleep(LOOK_SECONDS)
    return False
