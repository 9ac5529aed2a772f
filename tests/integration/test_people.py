"""People and their tokens as rows, and what a list shows of private repos, on both kinds of database."""

import pytest
from sqlalchemy import delete, select

from albatros.db import pages, people, queries, tokens
from albatros.db.models import Person, Token
from albatros.db.session import Database
from albatros.db.sight import ALL, Sight
from albatros.domain.access import Scope, new_token
from albatros.domain.refs import ANY_REPO, RepoFilter
from albatros.errors import ConflictError, NotFoundError
from tests.support.seed import seed

NOTHING = Sight(public=False, own=None)


def log_in(database: Database, subject: str, login: str, forge: str = "home") -> Person:
    with database.write() as session:
        return people.logged_in(session, forge, subject, login)


def create(database: Database, name: str, person: Person | None) -> Token:
    owner = person.id if person is not None else None
    with database.write() as session:
        return tokens.create(session, name, new_token(), Scope.READ, None, person_id=owner)


def test_a_person_is_the_same_at_every_login_whatever_their_name(database: Database) -> None:
    first, again = log_in(database, "7", "ines"), log_in(database, "7", "ines-b")
    assert (again.id, again.login, again.sessions) == (first.id, "ines-b", 1)
    assert log_in(database, "7", "ines", forge="work").id != first.id


def test_a_name_that_changed_hands_is_its_new_owners_alone(database: Database) -> None:
    before, elsewhere = log_in(database, "7", "ines"), log_in(database, "7", "ines", forge="work")
    after = log_in(database, "8", "Ines")
    with database.read() as session:
        assert people.find(session, before.id) is None
        assert session.get_one(Person, before.id).sessions == 2
        assert people.find(session, after.id) is not None
        assert people.find(session, elsewhere.id) is not None
    assert log_in(database, "7", "ines-b").id == before.id


def test_a_logout_counts_up(database: Database) -> None:
    person = log_in(database, "7", "ines")
    with database.write() as session:
        people.end_sessions(session, person.id)
    assert log_in(database, "7", "ines").sessions == 2


def test_a_name_is_taken_once_for_each_owner(database: Database) -> None:
    ines, ada = log_in(database, "7", "ines"), log_in(database, "8", "ada")
    for owner in (ines, ada, None):
        create(database, "a script", owner)
        with pytest.raises(ConflictError, match="'a script' already"):
            create(database, "a script", owner)


def test_a_token_is_revoked_by_its_name_and_owner(database: Database) -> None:
    ines = log_in(database, "7", "ines")
    for owner in (ines, None):
        create(database, "a script", owner)
    with database.write() as session:
        tokens.revoke(session, "a script")
        assert [tokens.owner_of(row) for row in tokens.list_all(session)] == ["home/ines"]
        with pytest.raises(NotFoundError):
            tokens.revoke(session, "a script")
        tokens.revoke(session, "a script", "home/ines")
        assert tokens.list_all(session) == []


def test_the_tokens_of_a_person_go_with_them(database: Database) -> None:
    ines = log_in(database, "7", "ines")
    create(database, "a script", ines)
    with database.write() as session:
        session.execute(delete(Person).where(Person.id == ines.id))
    with database.read() as session:
        assert session.scalars(select(Token)).all() == []


@pytest.mark.parametrize(
    ("sight", "private", "public"),
    [
        (ALL, True, True),
        (Sight(public=True, own=None), False, True),
        (NOTHING, False, False),
        (Sight(public=True, own=RepoFilter("work")), False, True),
        (Sight(public=False, own=RepoFilter("home")), True, True),
        (Sight(public=False, own=RepoFilter("home", "alba", "keys")), True, False),
        (Sight(public=True, own=RepoFilter("home", "alba", "keys")), True, True),
    ],
)
def test_a_list_shows_what_its_sight_lets_through(
    database: Database, sight: Sight, private: bool, public: bool
) -> None:
    seed(database)
    part, everything = queries.Slice(100), pages.BuildFilter()
    with database.read() as session:
        lists = [
            [row.repo.private for row in pages.list_builds(session, sight, everything, 100)],
            [row.repo.private for row in pages.list_repos(session, sight, 100, 0)],
            [row.private for row in queries.list_repos(session, sight, part, ANY_REPO)],
            [row.build.repo.private for row in queries.list_images(session, sight, part)],
            [row.job.build.repo.private for row in queries.list_artifacts(session, sight, part)],
        ]
    for found in lists:
        assert (True in found) is private
        assert (False in found) is public


def test_a_list_goes_without_what_turned_out_to_be_hidden(database: Database) -> None:
    seed(database)
    with database.read() as session:
        first = pages.list_builds(session, ALL, pages.BuildFilter(), 100)[0].repo_id
        sight = Sight(public=True, own=ANY_REPO, without=frozenset({first}))
        found = pages.list_builds(session, sight, pages.BuildFilter(), 100)
    assert found
    assert first not in {build.repo_id for build in found}
