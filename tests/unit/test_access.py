"""Who may do what with which Repo, and what is asked of the forge for it."""

from dataclasses import replace

import pytest

from albatros.domain.access import NOBODY, Person, Scope, Who
from albatros.domain.refs import RepoFilter
from albatros.errors import ForbiddenError, ForgeError, ForgeUnavailableError, NotFoundError
from albatros.flows import access
from albatros.flows.access import FRESH_SECONDS, OLD_SECONDS, Roles, Unseen
from albatros.forges.base import Permission
from tests.support.people import FakePeople

KEYS = Unseen("home", "alba", "keys")
HELLO = Unseen("home", "alba", "hello", private=False)
ELSEWHERE = Unseen("work", "alba", "hello", private=False)
INES = Who("ines", Scope.ADMIN, Person(1, "home", "ines", "id-of-ines"))
SERVERS = Who("a script", Scope.ADMIN, token=True)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def people() -> FakePeople:
    return FakePeople()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def roles(people: FakePeople, clock: Clock) -> Roles:
    return Roles({"home": people}, public=False, clock=clock)


def may(roles: Roles, who: Who, repo: Unseen) -> set[Scope]:
    return {scope for scope in Scope if roles.may(who, repo, scope)}


@pytest.mark.parametrize(
    ("permission", "expected"),
    [
        (Permission.NONE, set()),
        (Permission.READ, {Scope.READ}),
        (Permission.WRITE, {Scope.READ, Scope.WRITE}),
        (Permission.ADMIN, set(Scope)),
    ],
)
def test_a_person_may_what_the_forge_says(
    roles: Roles, people: FakePeople, permission: Permission, expected: set[Scope]
) -> None:
    people.given["alba/keys", "ines"] = permission
    assert may(roles, INES, KEYS) == expected


def test_a_token_reaches_no_further_than_its_scope_its_repos_and_its_person(roles: Roles, people: FakePeople) -> None:
    people.given["alba/keys", "ines"] = Permission.WRITE
    assert may(roles, replace(INES, scope=Scope.READ), KEYS) == {Scope.READ}
    assert may(roles, replace(INES, bound=RepoFilter("home", "alba")), KEYS) == {Scope.READ, Scope.WRITE}
    assert may(roles, replace(INES, bound=RepoFilter("home", "alba", "hello")), KEYS) == set()
    assert may(roles, replace(SERVERS, bound=RepoFilter("home", "else")), KEYS) == set()
    assert may(roles, SERVERS, KEYS) == set(Scope)


def test_public_repos_are_for_those_of_their_forge_unless_the_server_is_public(people: FakePeople) -> None:
    closed, opened = (Roles({"home": people}, public=public) for public in (False, True))
    assert may(closed, INES, HELLO) == {Scope.READ}
    assert may(closed, INES, ELSEWHERE) == set()
    assert may(closed, NOBODY, HELLO) == set()
    assert may(closed, replace(INES, bound=RepoFilter("home", "alba", "keys")), HELLO) == set()
    for who in (NOBODY, INES):
        assert may(opened, who, ELSEWHERE) == {Scope.READ}
        assert may(opened, who, KEYS) == set()


def test_an_operator_may_everything_and_nobody_is_asked(roles: Roles, people: FakePeople) -> None:
    operator = replace(INES, operator=True)
    for repo in (KEYS, HELLO, ELSEWHERE):
        assert may(roles, operator, repo) == set(Scope)
    assert may(roles, replace(operator, scope=Scope.READ), KEYS) == {Scope.READ}
    assert people.asked == []


def test_an_answer_is_kept_for_a_short_time(roles: Roles, people: FakePeople, clock: Clock) -> None:
    people.given["alba/keys", "ines"] = Permission.WRITE
    assert roles.may(INES, KEYS, Scope.WRITE)
    people.given["alba/keys", "ines"] = Permission.READ
    clock.seconds = FRESH_SECONDS - 1
    assert roles.may(INES, KEYS, Scope.WRITE)
    assert len(people.asked) == 1
    clock.seconds = FRESH_SECONDS
    assert not roles.may(INES, KEYS, Scope.WRITE)
    assert len(people.asked) == 2


def test_what_must_be_known_now_is_asked_now(roles: Roles, people: FakePeople) -> None:
    people.given["alba/keys", "ines"] = Permission.WRITE
    assert INES.person is not None
    assert roles.permission(INES.person, "alba", "keys") is Permission.WRITE
    people.given["alba/keys", "ines"] = Permission.NONE
    assert roles.permission(INES.person, "alba", "keys", now=True) is Permission.NONE
    assert roles.permission(INES.person, "alba", "keys") is Permission.NONE


def test_while_the_forge_is_away_an_answer_counts_up_to_its_age(roles: Roles, people: FakePeople, clock: Clock) -> None:
    people.given["alba/keys", "ines"] = Permission.READ
    assert roles.may(INES, KEYS, Scope.READ)
    people.go_away()
    clock.seconds = OLD_SECONDS - 1
    assert roles.may(INES, KEYS, Scope.READ)
    clock.seconds = OLD_SECONDS
    with pytest.raises(ForgeUnavailableError, match="home cannot be asked what ines may do there"):
        roles.may(INES, KEYS, Scope.READ)


def test_a_forge_that_does_not_say_lets_nobody_in(roles: Roles, people: FakePeople) -> None:
    people.trouble = ForgeError("home: GET /repos answered 403: check that forges.token may do this")
    assert may(roles, INES, KEYS) == set()


def test_what_is_hidden_is_told_as_what_is_not_there(roles: Roles, people: FakePeople) -> None:
    with pytest.raises(NotFoundError) as hidden:
        roles.check(INES, KEYS, Scope.READ, "build 7")
    with pytest.raises(NotFoundError) as missing:
        roles.check(INES, None, Scope.READ, "build 7")
    assert hidden.value.detail == missing.value.detail
    people.given["alba/keys", "ada"] = Permission.READ
    ada = Who("ada", Scope.ADMIN, Person(2, "home", "ada", "id-of-ada"))
    with pytest.raises(ForbiddenError, match="needs write on alba/keys"):
        roles.check(ada, KEYS, Scope.WRITE, "build 7")


def test_while_the_forge_is_away_what_is_hidden_is_told_as_what_is_not_there(
    roles: Roles, people: FakePeople, clock: Clock
) -> None:
    def told(repo: Unseen | None) -> tuple[type[Exception], str]:
        with pytest.raises((NotFoundError, ForgeUnavailableError)) as problem:
            roles.check(INES, repo, Scope.READ, "build 7")
        return problem.type, problem.value.detail

    for known in (KEYS, None):
        assert told(known)[0] is NotFoundError
    people.go_away()
    others = replace(KEYS, name="never-asked"), replace(KEYS, forge="work")
    for seconds in (0.0, FRESH_SECONDS - 1, FRESH_SECONDS, OLD_SECONDS - 1, OLD_SECONDS):
        clock.seconds = seconds
        answers = {told(repo) for repo in (None, KEYS, *others)}
        assert len(answers) == 1, answers
        assert (ForgeUnavailableError in next(iter(answers))) is (seconds >= FRESH_SECONDS)


def test_answers_do_not_pile_up(roles: Roles, people: FakePeople, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_ANSWERS", 10)
    for number in range(30):
        roles.may(INES, replace(KEYS, name=f"keys-{number}"), Scope.READ)
    assert len(roles._answers) == 10
    roles.may(INES, replace(KEYS, name="keys-29"), Scope.READ)
    assert len(people.asked) == 30
