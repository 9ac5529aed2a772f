"""`albatros serve` with little patience, and with something wrong in it, which ALBATROS_CHAOS names: `KIND:VALUE`.

`none` is nothing; `die:POINT` kills it at a point of crash_server, when Nomad has a job of which no row tells
(`registered`), or between a build's result and its commit (`reported`); `ahead:SECONDS` puts its clock forward;
`unfenced` lets a second runner claim an Attempt, which the suite must notice: each order that is given is written
down, as a line with the Attempt and the nonce, in the file that ALBATROS_CHAOS_ORDERS names.
"""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import event, text, update
from sqlalchemy.orm import Session

from albatros import cli, roles
from albatros.db import session
from albatros.db.models import Attempt
from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.executors import nomad_tokens, nomad_watch
from albatros.executors.nomad_api import NomadApi
from albatros.flows import attempts, dispatch
from albatros.flows.dispatch import token_hash
from albatros.forges.base import Forge
from albatros.settings import Settings
from tests.support.crash_server import ROWS, die, die_at_row

CHAOS = "ALBATROS_CHAOS"
ORDERS = "ALBATROS_CHAOS_ORDERS"
REGISTERED, REPORTED = "registered", "reported"


def be_impatient() -> None:
    """What is tried or looked at again after a while is so after a short one, which changes nothing but time."""
    dispatch.REPEAT_AFTER = timedelta(seconds=2)
    nomad_tokens.SEARCH_SECONDS = 1.0
    nomad_watch.RELIST_SECONDS = 3.0
    roles.LEFT_OVER_SECONDS = 3.0


def die_when_registered() -> None:
    """Die when Nomad has a job, and before a row says so."""
    register = NomadApi.register

    def register_and_die(self: NomadApi, job: Mapping[str, object]) -> bool:
        made = register(self, dict(job))
        die()
        return made

    NomadApi.register = register_and_die  # type: ignore[method-assign]  # this process is the test's own


def die_before_commit(query: str) -> None:
    """Die before the commit of a transaction that has made a row which this query finds."""

    @event.listens_for(Session, "before_commit")
    def look(session: Session) -> None:
        if session.connection().execute(text(query)).first() is not None:
            die()


def put_clock_forward(seconds: float) -> None:
    """Every module that asks for the time is told a later one: the flows are imported already."""
    told = session.now

    def later() -> datetime:
        return datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds)

    for module in list(sys.modules.values()):
        if getattr(module, "now", None) is told:
            module.now = later  # type: ignore[attr-defined]  # as above


def take_the_fence_away() -> None:
    """Whoever claims, gets: the claim before is forgotten."""
    claim = attempts.claim

    def claim_anyway(
        database: Database,
        signals: Signals,
        settings: Settings,
        forges: Mapping[str, Forge],
        token: str,
        nonce: str,
        *where: object,
    ) -> dict[str, object]:
        with database.write() as opened:
            opened.execute(update(Attempt).where(Attempt.token_hash == token_hash(token)).values(nonce=None))
        return claim(database, signals, settings, forges, token, nonce, *where)

    attempts.claim = claim_anyway  # type: ignore[assignment]  # as above


def write_orders_down(path: Path) -> None:
    """Note to whom each order is given, before he gets it."""
    claim = attempts.claim

    def claim_and_note(
        database: Database,
        signals: Signals,
        settings: Settings,
        forges: Mapping[str, Forge],
        token: str,
        nonce: str,
        *where: object,
    ) -> dict[str, object]:
        order = claim(database, signals, settings, forges, token, nonce, *where)
        with path.open("a") as orders:
            orders.write(f"{order['attempt']} {nonce}\n")
        return order

    attempts.claim = claim_and_note  # type: ignore[assignment]  # as above


def main() -> int:
    kind, _, value = os.environ[CHAOS].partition(":")
    be_impatient()
    match kind:
        case "none":
            pass
        case "die" if value == REGISTERED:
            die_when_registered()
        case "die" if value == REPORTED:
            die_before_commit(ROWS["result"])
        case "die":
            die_at_row(ROWS[value])
        case "ahead":
            put_clock_forward(float(value))
        case "unfenced":
            take_the_fence_away()
        case _:
            raise AssertionError(kind)
    write_orders_down(Path(os.environ[ORDERS]))
    return cli.main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
