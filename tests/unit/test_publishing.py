"""Who may publish what, where, from which ref."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.plan import PlannedImage
from albatros.domain.publishing import Destination, Origin, RegistryRule, destinations, registry_name
from albatros.domain.references import check_name
from albatros.domain.repo_config import ImageConfig
from albatros.domain.states import Trigger
from albatros.domain.tags import TagKind
from albatros.errors import ImageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ORIGIN = Origin("alba", "hello", False, "refs/heads/main", COMMIT, "main", Trigger.PUSH, True)
RULE = RegistryRule("hub", True, ("{owner}/{repo}",), ("alba/*",), ("refs/heads/*", "refs/tags/v*"), True)
IMAGE = PlannedImage(ImageConfig("hello", "hello"), True, ())


def where(image: ImageConfig = IMAGE.config, *rules: RegistryRule, origin: Origin = ORIGIN) -> list[str]:
    planned = PlannedImage(image, True, ())
    return [destination.registry for destination in destinations(planned, origin, rules or [RULE])]


def test_the_default_goes_everywhere_under_every_tag() -> None:
    other = replace(RULE, name="static", required=False)
    assert destinations(IMAGE, ORIGIN, [RULE, other]) == (
        Destination("hub", "alba/hello", (COMMIT, "main", "latest"), True),
        Destination("static", "alba/hello", (COMMIT, "main", "latest"), False),
    )


@pytest.mark.parametrize(
    ("rule", "origin"),
    [
        (RULE, replace(ORIGIN, private=True)),
        (RULE, replace(ORIGIN, trusted=False)),
        (RULE, replace(ORIGIN, is_merge=True)),
        (RULE, replace(ORIGIN, trigger=Trigger.PULL_REQUEST)),
        (RULE, replace(ORIGIN, owner="stranger")),
        (RULE, replace(ORIGIN, ref="refs/tags/1.2.3")),
        (replace(RULE, refs=()), ORIGIN),
        (replace(RULE, repos=()), ORIGIN),
    ],
)
def test_what_the_operator_did_not_allow_goes_nowhere(rule: RegistryRule, origin: Origin) -> None:
    assert destinations(IMAGE, origin, [rule]) == ()


def test_a_subgroup_is_part_of_the_name() -> None:
    nested = replace(ORIGIN, owner="Group/Sub_")
    assert registry_name(IMAGE, nested, ["{owner}/{repo}"]) == "group/sub/hello"
    assert registry_name(IMAGE, replace(ORIGIN, owner="group-sub"), ["{owner}/{repo}"]) == "group-sub/hello"


def test_a_private_repo_may_publish_where_nobody_else_can_pull() -> None:
    private = replace(ORIGIN, private=True)
    rules = [RULE, replace(RULE, name="inside", public=False)]
    assert [destination.registry for destination in destinations(IMAGE, private, rules)] == ["inside"]


def test_the_repos_own_settings_narrow() -> None:
    other = replace(RULE, name="static")
    config = IMAGE.config
    assert where(replace(config, publish=("static",)), RULE, other) == ["static"]
    assert where(replace(config, publish=()), RULE, other) == []
    assert where(replace(config, publish=("unknown",)), RULE, other) == []
    assert where(replace(config, on=("refs/tags/*",)), RULE, other) == []
    assert where(replace(config, on=("refs/heads/ma*",)), RULE, other) == ["hub", "static"]
    assert where(replace(config, tags=()), RULE, other) == []
    narrowed = PlannedImage(replace(config, tags=(TagKind.LATEST,)), True, ())
    assert destinations(narrowed, ORIGIN, [RULE])[0].tags == ("latest",)


def test_the_repos_own_settings_never_widen() -> None:
    nothing = replace(RULE, refs=("refs/tags/v*",))
    assert where(ImageConfig("hello", "hello", on=("*",), publish=("hub",)), nothing) == []
    stranger = replace(ORIGIN, owner="stranger")
    assert (
        where(ImageConfig("hello", "hello", registry_name="alba/hello", publish=("hub",)), RULE, origin=stranger) == []
    )


@pytest.mark.parametrize(
    ("config", "is_main", "templates", "name"),
    [
        (ImageConfig("hello", "hello"), True, ["{owner}/{repo}"], "alba/hello"),
        (ImageConfig("tools", "tools"), False, ["{owner}/{repo}"], "alba/hello/tools"),
        (ImageConfig("x", "x", registry_name="alba/hello"), False, ["{owner}/{repo}"], "alba/hello"),
        (ImageConfig("x", "x", registry_name="alba/hello/x"), True, ["{owner}/{repo}"], "alba/hello/x"),
        (ImageConfig("x", "x", registry_name="alba/other"), True, ["{owner}/{repo}"], "alba/hello/alba/other"),
        (ImageConfig("x", "x", registry_name="alba/hello2"), True, ["{owner}/{repo}"], "alba/hello/alba/hello2"),
        (ImageConfig("x", "x", registry_name="shared/x"), True, ["{repo}", "shared"], "shared/x"),
    ],
)
def test_a_name_is_the_repos_own_or_below_it(
    config: ImageConfig, is_main: bool, templates: list[str], name: str
) -> None:
    assert registry_name(PlannedImage(config, is_main, ()), ORIGIN, templates) == name


@pytest.mark.parametrize(
    ("owner", "repo", "name"),
    [("Alba", "Hello", "alba/hello"), ("a b", "c--d", "a-b/c--d"), ("_x_", "y.z", "x/y.z"), ("{repo}", "r", "repo/r")],
)
def test_names_of_forges_become_names_of_registries(owner: str, repo: str, name: str) -> None:
    origin = replace(ORIGIN, owner=owner, repo=repo)
    assert registry_name(IMAGE, origin, ["{owner}/{repo}"]) == name


@pytest.mark.parametrize(("owner", "templates"), [("日本", ["{owner}/{repo}"]), ("alba", []), ("alba", ["UPPER"])])
def test_a_name_that_cannot_be_is_refused(owner: str, templates: list[str]) -> None:
    with pytest.raises(ImageError):
        registry_name(IMAGE, replace(ORIGIN, owner=owner), templates)


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_any_owner_and_repo_give_a_good_name_or_an_image_error(owner: str, repo: str) -> None:
    try:
        name = registry_name(IMAGE, replace(ORIGIN, owner=owner, repo=repo), ["{owner}/{repo}"])
    except ImageError:
        return
    assert check_name(name) == name
    assert name.count("/") == owner.count("/") + 1
