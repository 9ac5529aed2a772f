"""What a real Gitea says of its people."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from albatros.domain.access import Person, Scope, Who
from albatros.flows.access import Roles, Unseen
from albatros.forges.base import Permission
from albatros.forges.gitea import GiteaForge
from albatros.settings import ForgeSettings
from tests.services.gitea_server import ADMIN, GiteaServer


@pytest.fixture
def forge(gitea: GiteaServer) -> Iterator[GiteaForge]:
    settings = {"name": "home", "kind": "gitea", "url": gitea.url, "token": gitea.token, "webhook_secret": "not-one"}
    with closing(GiteaForge(ForgeSettings.model_validate(settings))) as found:
        yield found


@pytest.fixture
def ines(gitea: GiteaServer) -> str:
    """Somebody with an account and nothing else."""
    name = f"ines-{secrets.token_hex(4)}"
    account: dict[str, object] = {"username": name, "email": f"{name}@example.org", "password": secrets.token_hex(12)}
    gitea.api("POST", "/admin/users", account)
    return name


def repo_of(gitea: GiteaServer, *, private: bool) -> str:
    name = f"repo-{secrets.token_hex(4)}"
    gitea.api("POST", "/user/repos", {"name": name, "private": private})
    return name


def test_each_permission_is_what_gitea_calls_it(gitea: GiteaServer, forge: GiteaForge, ines: str) -> None:
    repo = repo_of(gitea, private=True)
    assert forge.permission(ADMIN, repo, ines) is Permission.NONE
    for word, permission in (("read", Permission.READ), ("write", Permission.WRITE), ("admin", Permission.ADMIN)):
        gitea.api("PUT", f"/repos/{ADMIN}/{repo}/collaborators/{ines}", {"permission": word})
        assert forge.permission(ADMIN, repo, ines) is permission
    gitea.api("DELETE", f"/repos/{ADMIN}/{repo}/collaborators/{ines}")
    assert forge.permission(ADMIN, repo, ines) is Permission.NONE
    assert forge.permission(ADMIN, repo, ADMIN) is Permission.ADMIN


def test_who_or_what_is_not_there_has_none(gitea: GiteaServer, forge: GiteaForge, ines: str) -> None:
    repo = repo_of(gitea, private=False)
    assert forge.permission(ADMIN, repo, ines) is Permission.READ
    assert forge.permission(ADMIN, repo, "nobody-of-this-name") is Permission.NONE
    assert forge.permission(ADMIN, "no-such-repo", ines) is Permission.NONE
    assert forge.permission(ADMIN, repo, "../../admin") is Permission.NONE


def test_a_person_of_gitea_sees_a_private_repo_when_it_lets_them_in(
    gitea: GiteaServer, forge: GiteaForge, ines: str
) -> None:
    repo = Unseen("home", ADMIN, repo_of(gitea, private=True))
    told = gitea.api("GET", f"/users/{ines}")
    assert isinstance(told, dict)
    who = Who(ines, Scope.ADMIN, Person(1, "home", ines, str(told["id"])))
    assert not Roles({"home": forge}, public=True).may(who, repo, Scope.READ)
    gitea.api("PUT", f"/repos/{ADMIN}/{repo.name}/collaborators/{ines}", {"permission": "write"})
    roles = Roles({"home": forge}, public=True)
    assert roles.may(who, repo, Scope.WRITE)
    assert not roles.may(who, repo, Scope.ADMIN)
    before = replace(who, person=Person(1, "home", ines, "9999"))
    assert not roles.may(before, repo, Scope.READ), "the login was somebody else's before"
