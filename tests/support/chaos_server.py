"""`albatros serve` with little patience, and with something wrong in it, which ALBATROS_CHAOS names: `KIND:VALUE`.

`none` is nothing; `die:POINT` kills it at a point of crash_server, or when Nomad has a job of which no row tells
(`registered`); `ahead:SECONDS` puts its clock forward; `unfenced` lets a second runner claim an
Attempt, which the suite must notice.
"""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

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
REGISTERED = "registered"


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


def main() -> int:
    kind, _, value = os.environ[CHAOS].partition(":")
    be_impatient()
    match kind:
        case "none":
            pass
        case "die" if value == REGISTERED:
            die_when_registered()
        case "die":
            die_at_row(ROWS[value])
        case "ahead":
            put_clock_forward(float(value))
        case "unfenced":
            take_the_fence_away()
        case _:
            raise AssertionError(kind)
    return cli.main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
