"""Operators: the people whom `[[operators]]` makes admin of the whole server.

They are known by the forge's id of them, since names change hands: by the one in the configuration, or else by that of
whoever first logged in under the name.
"""

from __future__ import annotations

from albatros.db import people
from albatros.db.session import Database
from albatros.domain.access import Person
from albatros.log import get_logger
from albatros.settings import OperatorSettings, Settings

log = get_logger(__name__)


def is_operator(settings: Settings, database: Database, person: Person) -> bool:
    """True for those whom the configuration means."""
    if any(str(one.id) == person.subject for one in _of_forge(settings, person) if one.id):
        return True
    if not _is_named(settings, person):
        return False
    with database.read() as session:
        return people.find_operator(session, person.forge, person.login) == person.subject


def remember(settings: Settings, database: Database, person: Person) -> None:
    """At a login: the first under an operator's name is whom the configuration means from now on."""
    if not _is_named(settings, person):
        return
    with database.write() as session:
        known = people.remember_operator(session, person.forge, person.login, person.subject)
    if known != person.subject:
        log.warning(
            "an operator's name is somebody else's by now, who is no operator: set `id` in [[operators]] if they are",
            forge=person.forge, person=person.login, id=person.subject, known=known,
        )  # fmt: skip


def _of_forge(settings: Settings, person: Person) -> list[OperatorSettings]:
    return [one for one in settings.operators if one.forge == person.forge]


def _is_named(settings: Settings, person: Person) -> bool:
    """Whether an operator without an id has this name; case is ignored, as every forge does."""
    named = person.login.casefold()
    return any(not one.id and one.login.casefold() == named for one in _of_forge(settings, person))
