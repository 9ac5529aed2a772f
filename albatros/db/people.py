"""People as rows: who logged in with a forge, and when their sessions ended."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from albatros.db.models import Operator, Person
from albatros.db.session import now
from albatros.db.upsert import insert


def logged_in(session: Session, forge: str, subject: str, login: str) -> Person:
    """The person with this id on a forge, under the name that they have there now.

    Whoever had the name before loses it, and with it every session and token: the forge gave it to somebody else.
    """
    before = (Person.forge == forge, func.lower(Person.login) == login.lower(), Person.subject != subject)
    session.execute(update(Person).where(*before).values(login="", sessions=Person.sessions + 1))
    at = now()
    statement = insert(session, Person).values(
        forge=forge, subject=subject, login=login, sessions=1, created_at=at, logged_in_at=at
    )
    known = {"login": login, "logged_in_at": at}
    person_id = session.scalar(
        statement.on_conflict_do_update(index_elements=["forge", "subject"], set_=known).returning(Person.id)
    )
    return session.get_one(Person, person_id, populate_existing=True)


def remember_operator(session: Session, forge: str, login: str, subject: str) -> str:
    """Keep whose an operator's name is, unless that is known; the forge's id of who it is."""
    values = {"forge": forge, "login": login.casefold(), "subject": subject, "created_at": now()}
    session.execute(insert(session, Operator).values(values).on_conflict_do_nothing())
    return find_operator(session, forge, login)


def find_operator(session: Session, forge: str, login: str) -> str:
    """The forge's id of whose an operator's name is; empty before they first logged in."""
    row = session.get(Operator, (forge, login.casefold()), populate_existing=True)
    return row.subject if row is not None else ""


def find(session: Session, person_id: int) -> Person | None:
    """The person with this id, while they have a name on their forge."""
    return session.scalar(select(Person).where(Person.id == person_id, Person.login != ""))


def end_sessions(session: Session, person_id: int) -> None:
    """End every session of a person, in every browser."""
    session.execute(update(Person).where(Person.id == person_id).values(sessions=Person.sessions + 1))
