"""Every kind of forge: anything in any place of any webhook is read within bounds or refused."""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albatros.domain.inbound import Inbound, PullAction
from albatros.domain.refs import is_commit, is_ref, pull_number
from albatros.errors import BadInputError
from albatros.forges.base import Forge
from albatros.settings import ForgeKind
from tests.support.forge_worlds import FakeWorld, Message, bare_world, fake_world

KINDS = ("gitea", "forgejo", "github", "gitlab")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.sampled_from(
        ["x" * 70_000, "refs/heads/../x", "refs/heads/a\x00b", "\ud800", "https://evil.example.org/x.git"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
REMOVED = object()
UNFIT = {"Cc", "Cs", "Zl", "Zp"}
"""Control characters, halves of surrogate pairs and line breaks (Unicode, general categories)."""


def messages_of(world: FakeWorld) -> dict[str, Message]:
    commit = world.commit("first")
    return {
        "push": world.push("refs/heads/main", commit),
        "tag": world.annotate("v1", commit),
        "comment": world.comment(f"/approve {commit}"),
        **{str(action): world.pull(action, commit) for action in PullAction},
    }


@pytest.fixture(scope="module")
def worlds() -> Iterator[Mapping[str, tuple[Forge, Mapping[str, Message]]]]:
    with ExitStack() as stack:
        found: dict[str, tuple[Forge, Mapping[str, Message]]] = {}
        for kind in KINDS:
            world = stack.enter_context(fake_world(ForgeKind(kind)))
            found[kind] = (world.forge, messages_of(world))
        bare = stack.enter_context(bare_world())
        found["git"] = (bare.forge, {"push": bare.push("refs/heads/main", bare.commit("first"))})
        yield found


@pytest.fixture(scope="module")
def places_of(worlds: Mapping[str, tuple[Forge, Mapping[str, Message]]]) -> Mapping[bytes, list[tuple[str, ...]]]:
    """The places of each body, those that are read several times: without them it is refused, or something else."""
    found = {}
    for forge, messages in worlds.values():
        for headers, body in messages.values():
            whole = read(forge, (headers, body))
            places = list(paths_of(json.loads(body)))
            used = [path for path in places if read(forge, (headers, with_value(body, path, REMOVED))) != whole]
            found[body] = used * (len(places) // max(len(used), 1)) + places
    return found


def read(forge: Forge, message: Message) -> Inbound | None:
    try:
        return forge.parse(*message)
    except BadInputError:
        return None


def paths_of(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place of an object."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from paths_of(inner, (*path, key))


def with_value(body: bytes, path: tuple[str, ...], value: object) -> bytes:
    data: dict[str, Any] = json.loads(body)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data).encode()


def check(inbound: Inbound) -> None:
    """What was read is safe to keep: bounded, one line, and refs and commits that are some."""
    texts = [inbound.ignored, inbound.event, inbound.delivery_id]
    for move in inbound.moves:
        assert is_ref(move.ref)
        assert move.after is None or is_commit(move.after)
        texts += [move.author, move.title]
    if inbound.pull is not None:
        pull = inbound.pull.pull
        assert is_commit(pull.commit)
        assert pull_number(pull.ref) == pull.number
        assert not pull.branch or is_ref(f"refs/heads/{pull.branch}")
        assert is_ref(pull.base_ref)
        texts += [pull.label, pull.author, pull.title, inbound.pull.sender]
    if inbound.command is not None:
        texts += [inbound.command.author, inbound.command.comment]
        assert inbound.command.pull > 0
    for text in texts:
        text.encode("utf-8")
        assert len(text) <= 255
        assert not UNFIT & {unicodedata.category(char) for char in text}, text


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused(
    worlds: Mapping[str, tuple[Forge, Mapping[str, Message]]],
    places_of: Mapping[bytes, list[tuple[str, ...]]],
    data: st.DataObject,
) -> None:
    forge, messages = worlds[data.draw(st.sampled_from(sorted(worlds)))]
    headers, body = messages[data.draw(st.sampled_from(sorted(messages)))]
    path = data.draw(st.sampled_from(places_of[body]))
    inbound = read(forge, (headers, with_value(body, path, data.draw(JSON | st.just(REMOVED)))))
    if inbound is not None:
        check(inbound)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_commits_are_read(worlds: Mapping[str, tuple[Forge, Mapping[str, Message]]], kind: str) -> None:
    forge, messages = worlds[kind]
    headers, body = messages["push"]
    many = with_value(body, ("commits",), [{"id": "a" * 40, "message": "x" * 1000}] * 10_000)
    (move,) = forge.parse(headers, many).moves
    assert move.after == forge.parse(headers, body).moves[0].after


@pytest.mark.parametrize("kind", KINDS)
def test_addresses_in_a_payload_are_never_used(
    worlds: Mapping[str, tuple[Forge, Mapping[str, Message]]], kind: str
) -> None:
    forge, messages = worlds[kind]
    headers, body = messages["push"]
    evil = "https://evil.example.org/x.git"
    home = "project" if kind == "gitlab" else "repository"
    for field in ("clone_url", "git_http_url", "url", "ssh_url", "html_url"):
        body = with_value(body, (home, field), evil)
    inbound = forge.parse(headers, body)
    assert "evil" not in repr(inbound)
    assert "evil" not in forge.clone_source("alba", "hello").url
