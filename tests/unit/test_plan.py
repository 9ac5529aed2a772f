"""From what an evaluation reported to Jobs, and from Jobs to images."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.plan import (
    Evaluated,
    PlannedImage,
    PlannedJob,
    package_of,
    plan_images,
    plan_jobs,
    read_evaluation,
)
from albatros.domain.repo_config import ImageConfig, RepoConfig
from albatros.errors import EvaluationError

LIMIT = 10


def drv(name: str) -> str:
    return f"/nix/store/{'0' * 32}-{name}.drv"


def item(attribute: str, name: str, *needs: str, system: str = "x86_64-linux") -> dict[str, object]:
    reported = {"attribute": attribute, "drv_path": drv(name), "system": system, "name": name}
    return {**reported, "error": None, "needs": [drv(need) for need in needs]}


def evaluated(attribute: str, name: str, *needs: str) -> Evaluated:
    return read_evaluation([item(attribute, name, *needs)], LIMIT)[0]


def test_a_report_is_read() -> None:
    read = read_evaluation(
        [item("packages.x86_64-linux.a", "a", "b"), {"attribute": "checks.x.y", "drv_path": None, "error": "no\x00pe"}],
        LIMIT,
    )
    assert read[0] == Evaluated("packages.x86_64-linux.a", drv("a"), "x86_64-linux", "a", "", (drv("b"),))
    assert read[1] == Evaluated("checks.x.y", None, "", "y", "no\ufffdpe", ())


def test_an_attribute_that_failed_without_a_word() -> None:
    for error in (None, "", 3, {"a": 1}):
        (read,) = read_evaluation([{"attribute": "a", "drv_path": None, "error": error}], LIMIT)
        assert read.error == "it does not evaluate, and Nix gave no reason"


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (None, "no list"),
        ({}, "no list"),
        ([item(f"packages.s-l.a{n}", "a") for n in range(LIMIT + 1)], "at most 10 attributes"),
        (["x"], "no object"),
        ([{"drv_path": drv("a")}], "without a usable name"),
        ([{"attribute": "", "drv_path": None}], "without a usable name"),
        ([{"attribute": "a" * 256, "drv_path": None}], "without a usable name"),
        ([{"attribute": "a\nb", "drv_path": None}], "without a usable name"),
        ([{"attribute": "a\ud800", "drv_path": None}], "without a usable name"),
        ([item("a", "a") | {"drv_path": "/etc/passwd"}], "a: the evaluation reported a derivation path that is none"),
        ([item("a", "a") | {"drv_path": drv("a") + "\n"}], "derivation path that is none"),
        ([item("a", "a") | {"drv_path": ""}], "derivation path that is none"),
        ([item("a", "a") | {"drv_path": 3}], "derivation path that is none"),
        ([item("a", "a") | {"system": None}], "a: the derivation's system"),
        ([item("a", "a") | {"system": "x" * 40 + "-linux"}], "a: the derivation's system"),
        ([item("a", "a") | {"system": "builtin"}], "a: the derivation's system"),
        ([item("a", "a") | {"needs": "x"}], "a: the evaluation reported unreadable dependencies"),
        ([item("a", "a") | {"needs": [3]}], "a: the evaluation reported unreadable dependencies"),
        ([item("a", "a"), item("a", "b")], "one attribute twice"),
    ],
)
def test_what_cannot_be_read_is_said(items: object, says: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        read_evaluation(items, LIMIT)
    assert says in caught.value.detail


def test_one_derivation_is_one_job_whatever_names_it() -> None:
    jobs = plan_jobs(
        read_evaluation([item("packages.x86_64-linux.a", "a"), item("packages.x86_64-linux.default", "a")], LIMIT)
    )
    assert [job.attributes for job in jobs] == [("packages.x86_64-linux.a", "packages.x86_64-linux.default")]


def test_edges_lead_only_to_jobs_of_the_build() -> None:
    reported = [
        item("p.a", "a", "b", "elsewhere", "a"),
        item("p.b", "b"),
        item("p.c", "a", "c"),
        item("p.d", "c"),
        {"attribute": "p.e", "drv_path": None, "error": "no"},
    ]
    jobs = {job.key: job for job in plan_jobs(read_evaluation(reported, LIMIT))}
    assert list(jobs) == [drv("a"), drv("b"), drv("c"), "attribute:p.e"]
    assert jobs[drv("a")].needs == (drv("b"), drv("c")), "of both attributes, without itself and what is not built here"
    assert jobs["attribute:p.e"] == PlannedJob("attribute:p.e", None, "", "e", ("p.e",), "no", ())


@pytest.mark.parametrize(
    "edges", [[("a", "b"), ("b", "a")], [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", None)]]
)
def test_a_circle_is_refused(edges: list[tuple[str, str | None]]) -> None:
    with pytest.raises(EvaluationError, match="in a circle"):
        plan_jobs([evaluated(f"p.{name}", name, *([need] if need else [])) for name, need in edges])


def test_nothing_to_build_is_said() -> None:
    with pytest.raises(EvaluationError, match=r"no packages and no checks; add outputs"):
        plan_jobs([])


@pytest.mark.parametrize(
    ("attribute", "package"),
    [
        ("packages.x86_64-linux.hello", ("x86_64-linux", "hello")),
        ("packages.armv6l-linux.my_hello'", ("armv6l-linux", "my_hello'")),
        ("checks.x86_64-linux.hello", None),
        ("packages.x86_64-linux.a.b", None),
        ("packages.x86_64-linux.", None),
        ("packages.hello", None),
        ("legacyPackages.x86_64-linux.hello", None),
    ],
)
def test_a_package_is_known_by_its_attribute(attribute: str, package: tuple[str, str] | None) -> None:
    assert package_of(attribute) == package


X86, ARM = "packages.x86_64-linux.", "packages.aarch64-linux."


def images(*jobs: str, archives: str = "", config: RepoConfig | None = None) -> dict[str, PlannedImage]:
    """Each job is `NAME NAME…`: what it is called under x86_64, numbered from 1."""
    rows = [(number, [X86 + name for name in names.split()]) for number, names in enumerate(jobs, start=1)]
    with_archive = frozenset(X86 + name for name in archives.split())
    return {image.config.name: image for image in plan_images(config or RepoConfig(), "hello", rows, with_archive)}


def test_archives_under_one_name_become_one_image() -> None:
    rows = [(1, [X86 + "docker"]), (2, [ARM + "docker"]), (3, [X86 + "other"])]
    (image,) = plan_images(RepoConfig(), "hello", rows, frozenset({X86 + "docker", ARM + "docker"}))
    assert image.config == ImageConfig("docker", "docker")
    assert image.is_main
    assert [(part.attribute_system, part.job_id) for part in image.parts] == [("aarch64-linux", 2), ("x86_64-linux", 1)]


def test_default_under_another_name_is_no_second_image() -> None:
    assert set(images("default web", "tools", archives="default web tools")) == {"web", "tools"}
    assert set(images("default", "tools", archives="default tools")) == {"default", "tools"}


@pytest.mark.parametrize(
    ("names", "main"),
    [
        ("hello docker image", "hello"),
        ("docker image web", "image"),
        ("docker default", "docker"),
        ("default web", "default"),
        ("web", "web"),
        ("web tools", None),
    ],
)
def test_one_image_takes_the_repos_own_name(names: str, main: str | None) -> None:
    found = images(*names.split(), archives=names)
    assert [name for name, image in found.items() if image.is_main] == ([main] if main else [])


def test_two_outputs_that_would_be_one_image_are_refused() -> None:
    with pytest.raises(
        EvaluationError, match=r"Web_app and packages\.<system>\.web-app would both be the image web-app"
    ):
        images("web-app", "Web_app", archives="web-app Web_app")


def test_named_images_are_made_of_what_they_name() -> None:
    config = RepoConfig(images=(ImageConfig("web", "server", "bin/web"), ImageConfig("cli", "server", "bin/cli")))
    found = images("server", "docker", archives="docker", config=config)
    assert set(found) == {"web", "cli"}
    assert found["cli"].parts[0].binary == "bin/cli"
    assert images("docker", archives="docker", config=RepoConfig(images=())) == {}


def test_an_image_of_nothing_is_said() -> None:
    config = RepoConfig(images=(ImageConfig("web", "server"),))
    with pytest.raises(
        EvaluationError, match=r"image web: the flake has no packages\.<system>\.server; check \[images"
    ):
        images("hello", config=config)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
NAMES = st.sampled_from(["a", "b", "c", "d"])
ITEMS = st.one_of(
    st.builds(lambda name, needs: item(f"packages.x86_64-linux.{name}", name, *needs), NAMES, st.lists(NAMES)),
    st.builds(lambda name, error: {"attribute": name, "drv_path": None, "error": error}, NAMES, JSON),
    st.builds(
        lambda name, key, value: item(name, name) | {key: value}, NAMES, st.sampled_from(list(item("a", "a"))), JSON
    ),
    JSON,
)


@given(st.one_of(JSON, st.lists(ITEMS, max_size=LIMIT + 2)))
def test_any_report_gives_a_plan_or_an_evaluation_error(report: object) -> None:
    with contextlib.suppress(EvaluationError):
        jobs = plan_jobs(read_evaluation(report, LIMIT))
        keys = [job.key for job in jobs]
        assert len(set(keys)) == len(keys)
        for job in jobs:
            assert set(job.needs) <= set(keys) - {job.key}
            job.error.encode()
            job.name.encode()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_edges_are_ordered_or_refused(edges: list[tuple[int, int]]) -> None:
    reported = [
        evaluated(f"p.n{node}", f"n{node}", *(f"n{need}" for other, need in edges if other == node))
        for node in range(10)
    ]
    try:
        jobs = plan_jobs(reported)
    except EvaluationError:
        return
    done: set[str] = set()
    while len(done) < len(jobs):
        ready = {job.key for job in jobs if job.key not in done and set(job.needs) <= done}
        assert ready, "what was planned could never be built"
        done |= ready
