"""Platforms: what tools write, what they leave out, and what is no platform at all."""

import pytest

from albatros.domain.platforms import Platform, PlatformHints, from_file_name, from_system, resolve
from albatros.errors import ImageError, UsageError

V6 = Platform("linux", "arm", "v6")
V7 = Platform("linux", "arm", "v7")
ARM64 = Platform("linux", "arm64", "v8")
AMD64 = Platform("linux", "amd64")
NONE = PlatformHints()


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("amd64", AMD64),
        ("x86_64-linux", AMD64),
        ("linux/amd64", AMD64),
        ("arm", V6),
        ("arm/v7", V7),
        ("linux/arm/7", V7),
        ("armv6l-linux", V6),
        ("aarch64-linux", ARM64),
        ("Linux/ARM64", ARM64),
        ("i686-linux", Platform("linux", "386")),
    ],
)
def test_names_come_into_one_form(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize(
    "text", ["", "/", "plan9/amd64", "pdp11", "arm/v9", "386/v6", "linux/arm/v6/x", "x86_64-darwin"]
)
def test_what_is_no_platform_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("system", "platform"),
    [
        ("armv7l-linux", V7),
        ("x86_64-linux", AMD64),
        ("x86_64-darwin", None),
        ("linux", None),
        ("", None),
        ("-linux", None),
    ],
)
def test_nix_systems(system: str, platform: Platform | None) -> None:
    assert from_system(system) == platform


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("linux.amd64.tar.gz", AMD64),
        ("linux.arm.tar.gz", V6),
        ("hello_linux_armv7.tar", V7),
        ("linux/arm/v7/hello", V7),
        ("hello-x86_64", AMD64),
        ("charm.tar", None),
        ("arm64-to-amd64.tar", None),
        ("hello.tar", None),
    ],
)
def test_file_names(name: str, platform: Platform | None) -> None:
    assert from_file_name(name) == platform


def test_an_arm_that_nobody_qualifies_is_v6() -> None:
    assert resolve("linux", "arm", "", NONE) == V6


def test_the_attributes_system_qualifies_before_the_file_name() -> None:
    assert resolve("linux", "arm", "", PlatformHints(system="armv7l-linux", file_name="linux.armv6.tar")) == V7
    assert resolve("linux", "arm", "", PlatformHints(system="x86_64-linux", file_name="linux.armv7.tar")) == V7


def test_the_configs_own_word_is_the_strongest() -> None:
    assert resolve("linux", "arm", "v7", PlatformHints(system="armv6l-linux")) == V7
    assert resolve("linux", "amd64", "", PlatformHints(system="aarch64-linux")) == AMD64


def test_hints_fill_in_a_config_that_says_nothing() -> None:
    assert resolve("", "", "", PlatformHints(system="aarch64-linux")) == ARM64
    with pytest.raises(ImageError, match="nothing says its platform"):
        resolve("", "", "", NONE)


def test_what_a_person_asked_for_must_be_so() -> None:
    assert resolve("linux", "arm", "", PlatformHints(explicit=V7)) == V7
    with pytest.raises(ImageError, match=r"for linux/amd64, not for linux/arm/v7 as asked"):
        resolve("linux", "amd64", "", PlatformHints(explicit=V7))


@pytest.mark.parametrize(
    ("system", "architecture", "variant"), [("windows", "amd64", ""), ("linux", "vax", ""), ("linux", "arm", "x" * 99)]
)
def test_unknown_words_are_refused(system: str, architecture: str, variant: str) -> None:
    with pytest.raises(ImageError):
        resolve(system, architecture, variant, NONE)


def test_platforms_sort_by_their_names() -> None:
    assert sorted([ARM64, V7, AMD64, V6]) == [AMD64, V6, V7, ARM64]
