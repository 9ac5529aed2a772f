"""Reconcile on both databases: pushes that nobody heard are found, once, and old branches are left alone."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select, update

from albatros.db.models import Build, Delivery, RefHead, Repo
from albatros.db.session import Database
from albatros.domain.inbound import RepoInfo
from albatros.domain.states import Trigger
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.flows.reconcile import MAX_UNREACHABLE, Reconciled, reconcile
from tests.support.forges import MemoryForge
from tests.support.inbox import Inbox

A, B, C = "a" * 40, "b" * 40, "c" * 40
MAIN, OLD = "refs/heads/main", "refs/heads/old"


class Watch(Inbox):
    """An inbox whose server also looks at its forge."""

    def look(self, *others: MemoryForge) -> Reconciled:
        forges = {forge.name: forge for forge in (*others, self.forge)}
        return reconcile(self.settings, self.database, self.writer, forges)

    def heads(self) -> dict[str, tuple[str | None, int]]:
        with self.database.read() as session:
            return {head.ref: (head.commit, head.sequence) for head in session.scalars(select(RefHead))}


@pytest.fixture
def watch(database: Database) -> Iterator[Watch]:
    watch = Watch(database)
    yield watch
    watch.writer.close()


def test_first_look_builds_the_default_branch_and_records_the_rest(watch: Watch) -> None:
    watch.forge.refs["alba/hello"] = {MAIN: A, OLD: B, "refs/tags/v1": C}
    found = watch.look()
    assert watch.builds() == [(A, 1)]
    assert len(found.builds) == 1
    assert watch.heads() == {MAIN: (A, 1), OLD: (B, 1), "refs/tags/v1": (C, 1)}
    with watch.database.read() as session:
        build = session.scalars(select(Build)).one()
        assert (build.ref, build.trigger, build.author, build.title) == (MAIN, Trigger.PUSH, "alba", "a title")
        assert session.scalars(select(Delivery)).one().event == "reconcile"
    assert watch.look() == Reconciled()


def test_what_moved_while_the_server_was_down_is_built(watch: Watch) -> None:
    refs = watch.forge.refs["alba/hello"]
    refs.update({MAIN: A, OLD: B})
    watch.look()
    refs.update({MAIN: C, "refs/tags/v2": C})
    del refs[OLD]
    assert len(watch.look().builds) == 2
    assert watch.heads() == {MAIN: (C, 2), OLD: (None, 2), "refs/tags/v2": (C, 1)}
    with watch.database.read() as session:
        rows = session.execute(select(Build.ref, Build.trigger).where(Build.commit == C)).all()
        triggers = {row.ref: row.trigger for row in rows}
    assert triggers == {MAIN: Trigger.PUSH, "refs/tags/v2": Trigger.TAG}
    refs[OLD] = B
    assert len(watch.look().builds) == 1, "a branch that came back"
    assert watch.look() == Reconciled()


def test_first_look_after_a_webhook_leaves_old_branches_alone(watch: Watch) -> None:
    watch.forge.refs["alba/hello"].update({OLD: B})
    watch.push(None, A)
    assert watch.look().builds == []
    assert watch.heads() == {MAIN: (A, 1), OLD: (B, 1)}
    watch.forge.refs["alba/hello"][OLD] = C
    assert len(watch.look().builds) == 1


def test_a_push_missed_before_the_first_look_is_built(watch: Watch) -> None:
    watch.push(None, A)
    watch.forge.refs["alba/hello"][MAIN] = B
    assert len(watch.look().builds) == 1
    assert watch.head() == (B, 2)


def test_webhook_and_reconciler_build_a_push_once(watch: Watch) -> None:
    watch.push(None, A)
    watch.look()
    watch.forge.refs["alba/hello"][MAIN] = B
    assert len(watch.look().builds) == 1
    assert "already known" in watch.deliver(A, B).reason
    assert watch.builds() == [(A, 1), (B, 2)]


def test_a_webhook_in_the_middle_of_a_look_is_not_undone(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heads were read, then a newer push arrives and is built; what was read is old by then."""
    watch.push(None, A)
    watch.look()
    refs = watch.forge.refs["alba/hello"]
    refs[MAIN] = B
    describe = watch.forge.describe

    def newer_push_first(owner: str, name: str) -> object:
        if refs[MAIN] == B:
            watch.push(B, C)
        return describe(owner, name)

    monkeypatch.setattr(watch.forge, "describe", newer_push_first)
    watch.look()
    assert watch.head()[0] == C
    assert watch.builds() == [(A, 1), (C, 2)]


def test_a_doubtful_webhook_is_made_good(watch: Watch) -> None:
    watch.push(None, A)
    watch.look()
    watch.forge.fails = ForgeUnavailableError("down")
    watch.forge.refs["alba/hello"][MAIN] = C
    assert watch.deliver(B, C).builds == ()
    assert watch.look().failures == ["alba/hello: down", "home: down"]
    watch.forge.fails = None
    assert len(watch.look().builds) == 1
    assert watch.head() == (C, 2)


def test_one_forge_or_repo_does_not_stop_the_others(watch: Watch) -> None:
    broken = MemoryForge(name="broken", fails=ForgeError("refused"))
    watch.settings = watch.settings.model_copy(
        update={"forges": (*watch.settings.forges, watch.settings.forges[0].model_copy(update={"name": "broken"}))}
    )
    watch.forge.add("alba/gone", main=B)
    watch.look()
    del watch.forge.refs["alba/gone"]
    watch.forge.refs["alba/hello"][MAIN] = A
    watch.forge.infos.pop("alba/gone")
    watch.forge.refs["alba/gone"] = {}
    found = watch.look(broken)
    assert len(found.builds) == 1
    assert found.failures == ["broken: refused", "alba/gone: no alba/gone"]


def test_a_forge_that_is_down_is_left_for_the_next_look(watch: Watch) -> None:
    for number in range(5):
        watch.forge.add(f"alba/r{number}", main=A)
    watch.look()
    watch.forge.asked.clear()
    watch.forge.fails = ForgeUnavailableError("down")
    assert len(watch.look().failures) == MAX_UNREACHABLE
    assert len(watch.forge.asked) == MAX_UNREACHABLE


def test_repos_that_may_not_build_are_not_looked_at(watch: Watch) -> None:
    watch.forge.add("eve/evil", main=A)
    watch.look()
    assert "heads eve/evil" not in watch.forge.asked
    evil = RepoInfo("eve", "evil", private=False, default_branch="main")
    watch.deliver(None, A, repo=evil)
    assert watch.look().builds == []
    with watch.database.write() as session:
        session.execute(update(Repo).where(Repo.owner == "eve").values(allowed=True))
    assert len(watch.look().builds) == 1


def test_a_repo_that_became_private_or_is_gone_is_hidden_without_a_push(watch: Watch) -> None:
    def private() -> dict[str, bool]:
        with watch.database.read() as session:
            return {repo.name: repo.private for repo in session.scalars(select(Repo))}

    watch.forge.add("alba/gone", main=B)
    watch.look()
    assert private() == {"hello": False, "gone": False}
    watch.forge.infos["alba/hello"] = RepoInfo("alba", "hello", private=True, default_branch="main")
    del watch.forge.infos["alba/gone"]
    watch.forge.fails = ForgeUnavailableError("down")
    watch.look()
    assert private() == {"hello": False, "gone": False}
    watch.forge.fails = None
    assert watch.look().builds == []
    assert private() == {"hello": True, "gone": True}
