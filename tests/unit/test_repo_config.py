""".albatros.toml: what it may say, and that everything else is refused with a sentence."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.platforms import Platform
from albatros.domain.repo_config import MAX_BYTES, MAX_IMAGES, LimitConfig, RepoConfig, parse
from albatros.domain.tags import TagKind
from albatros.errors import EvaluationError


def test_no_file_and_an_empty_one_say_nothing() -> None:
    assert parse(None) == parse("") == RepoConfig()
    assert parse(None).keeps("anything")


def test_a_whole_file() -> None:
    config = parse(
        """
        [images.hello]
        output = "hello-static"
        binary = "bin/./hello"
        name = "alba/hello"
        platforms = ["amd64", "linux/arm/v6", "aarch64-linux"]
        tags = ["commit", "version"]
        publish = ["hub"]
        on = ["refs/tags/*"]
        [images.tools]
        [artifacts.docs]
        output = "manual"
        [limits]
        job_seconds = 60
        memory_mb = 512
        """
    )
    assert config.images is not None
    hello, tools = config.images
    assert (hello.output, hello.binary, hello.registry_name) == ("hello-static", "bin/hello", "alba/hello")
    assert hello.platforms == (
        Platform("linux", "amd64"),
        Platform("linux", "arm", "v6"),
        Platform("linux", "arm64", "v8"),
    )
    assert hello.tags == (TagKind.COMMIT, TagKind.VERSION)
    assert (hello.publish, hello.on) == (("hub",), ("refs/tags/*",))
    assert (tools.output, tools.tags, tools.publish, tools.on) == ("tools", None, None, None)
    assert config.artifacts == ("manual",)
    assert config.limits == LimitConfig(60, None, 512)
    assert config.binaries("hello-static") == ("bin/hello",)
    assert config.binaries("hello") == ()
    assert config.keeps("tools"), "an image is made of it"
    assert config.keeps("manual")
    assert not config.keeps("hello-static"), "only its binary is asked for"


def test_an_empty_table_of_images_means_none() -> None:
    assert parse("[images]").images == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image = 1", "unknown key 'image'; did you mean 'images'?"),
        ("[images.a]\nbinry = 'x'", "unknown key 'images.a.binry'; did you mean 'binary'?"),
        ("[images.a]\nzzz = 'x'", "known here: output, binary"),
        ("[artifacts.a]\npath = 'x'", "unknown key 'artifacts.a.path'"),
        ("[limits]\njobs = 3", "unknown key 'limits.jobs'"),
        ("images = 3", "images must be a table"),
        ("images.a = 3", "images.a must be a table"),
        ("artifacts = []", "artifacts must be a table"),
        ("limits = 'x'", "limits must be a table"),
        ("[images.a]\noutput = 3", "images.a.output must be text"),
        ("[images.a]\ntags = 'x'", "images.a.tags must be a list"),
        ("[images.a]\ntags = [1]", "images.a.tags must be a list"),
        ("[images.a]\ntags = ['newest']", "'newest' is none of commit, branch, version, latest"),
        ("[images.a]\nplatforms = ['vax']", "images.a.platforms: 'vax' is not a platform"),
        ("[images.a]\nplatforms = ['arm/v9']", "images.a.platforms: arm has no variant 'v9'"),
        ("[images.a]\non = [" + "'x'," * 101 + "]", "at most 100"),
        ("[images.A]", "a name is at most 128 lower-case"),
        ("[images.'a..b']", "a name is at most"),
        (f"[images.{'a' * 129}]", "a name is at most"),
        ("[images.a]\nname = 'UPPER'", "is no image name"),
        ("[images.a]\noutput = 'a.b'", "is no attribute name"),
        ("[images.a]\noutput = ''", "images.a.output"),
        ("[images.a]\nbinary = '/bin/sh'", "must be a path inside the output"),
        ("[images.a]\nbinary = '../x'", "must be a path inside the output"),
        ("[images.a]\nbinary = ''", "must be a path inside the output"),
        ('[images.a]\nbinary = "a\\u0000b"', "must be a path inside the output"),
        ("[limits]\njob_seconds = 0", "above 0"),
        ("[limits]\njob_seconds = true", "above 0"),
        ("[limits]\nsilence_seconds = 1.5", "above 0"),
        ("[limits]\nmemory_mb = -1", "limits.memory_mb must be a number of MiB above 0"),
        ("x = ", "is not TOML"),
        ("x = 1\nx = 2", "is not TOML"),
        ("x = " + "9" * 5000, "is not TOML"),
        ("x = " + "[" * 5000, "is not TOML"),
        ("x = '\ud800'", "is not TOML"),
        ("#" * (MAX_BYTES + 1), "over 64 KiB"),
        ("".join(f"[images.i{n}]\n" for n in range(MAX_IMAGES + 1)), "at most 100 images"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        parse(text)
    assert says in caught.value.detail
    assert ".albatros.toml" in caught.value.detail


VALUES = st.recursive(
    st.one_of(
        st.text(max_size=20).map(repr),
        st.sampled_from(["true", "1", "-1", "1.5", "inf", "2024-01-01", "'x'", "'bin/x'", "'amd64'", "''"]),
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    max_leaves=5,
)
KEYS = st.sampled_from(["output", "binary", "name", "platforms", "tags", "publish", "on", "job_seconds", "other"])
HEADS = st.sampled_from(["[images.a]", "[images.b]", "[artifacts.a]", "[limits]", "[images]", "[other]"])


@given(st.lists(st.one_of(HEADS, st.tuples(KEYS, VALUES).map(" = ".join)), max_size=8).map("\n".join))
def test_anything_that_looks_like_it_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(EvaluationError):
        assert isinstance(parse(text), RepoConfig)


@given(st.text(st.characters(), max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(EvaluationError):
        assert isinstance(parse(text), RepoConfig)
