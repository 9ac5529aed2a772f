"""A forge that knows people: who may do what there is a dictionary, which tests change as they like."""

from dataclasses import dataclass, field

from albatros.db import people, tokens
from albatros.db.session import Database
from albatros.domain.access import Scope, new_token
from albatros.domain.refs import ANY_REPO, RepoFilter
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges.base import Permission
from albatros.http.deps import AppContext
from albatros.http.sessions import Session, SessionKind, cookie_name, person_proof, signer


@dataclass
class FakePeople:
    """Permissions by `OWNER/NAME` and login; who is not in it has none."""

    given: dict[tuple[str, str], Permission] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    """Whose a login is that changed hands."""
    trouble: ForgeError | None = None
    """Raised for every question."""
    asked: list[tuple[str, str]] = field(default_factory=list)

    def permission(self, owner: str, name: str, login: str, subject: str = "") -> Permission:
        self.asked.append((f"{owner}/{name}", login))
        if self.trouble is not None:
            raise self.trouble
        if subject != self.ids.get(login, f"id-of-{login}"):
            return Permission.NONE
        return self.given.get((f"{owner}/{name}", login), Permission.NONE)

    def go_away(self) -> None:
        self.trouble = ForgeUnavailableError("home: GET /repos: ConnectError: refused")


def cookie_of(context: AppContext, login: str) -> dict[str, str]:
    """The cookie of somebody who logged in with the forge `home`."""
    with context.database.write() as session:
        person = people.logged_in(session, "home", f"id-of-{login}", login)
    session_of = Session(SessionKind.PERSON, person.id, person_proof(person.sessions))
    return {cookie_name(context.settings): signer(context.settings.keys).issue(session_of)}


def token_of(database: Database, login: str, scope: Scope, bound: RepoFilter = ANY_REPO) -> str:
    """A token that somebody of the forge `home` made."""
    token = new_token()
    with database.write() as session:
        person = people.logged_in(session, "home", f"id-of-{login}", login)
        name = f"{login}-{scope}-{bound}"
        tokens.create(session, name, token, scope, None, person_id=person.id, bound=bound)
    return token
