"""Pages of a static registry: what they show, when they change, and that nothing in them is taken for markup."""

import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from albatros.domain import media
from albatros.domain.references import digest_of
from albatros.images.model import Image
from albatros.images.publish import publish
from albatros.registries import layout, pages
from albatros.registries.base import Manifest
from albatros.registries.html import image_page
from albatros.registries.objects import DirectoryObjects, StoredObject
from albatros.registries.static import StaticRegistry
from albatros.registries.static_tags import manifest_reader
from albatros.registries.summary import PlatformSize, TagSummary, summarize
from tests.support.images import make_image
from tests.support.stores import MemoryStore

NAME = "alba/hello"


class Counting(DirectoryObjects):
    """A directory that counts the manifests that are read."""

    manifests_read = 0

    def open(self, key: str) -> io.BufferedReader:
        self.manifests_read += "/manifests/" in key
        return super().open(key)  # type: ignore[return-value] # as above


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def image(store: MemoryStore) -> Image:
    return make_image(store)


@pytest.fixture
def objects(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


def push(objects: DirectoryObjects, store: MemoryStore, image: Image, *tags: str, name: str = NAME) -> None:
    publish(image, store, StaticRegistry(objects, "dir:x"), name, tags)


def text(objects: DirectoryObjects, key: str) -> str:
    with objects.open(key) as stream:
        return stream.read().decode()


def words(page: str) -> str:
    found: list[str] = []

    class Words(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Words().feed(page)
    return re.sub(r"\s+", " ", " ".join(found))


def test_an_image_page_says_what_there_is(objects: Counting, store: MemoryStore, image: Image) -> None:
    push(objects, store, image, "v1", "latest")
    page = text(objects, layout.page_key(NAME))
    shown = words(page)
    for expected in ("latest, v1", "docker pull HOST /alba/hello:latest", image.digest, "linux/amd64", "linux/arm/v6"):
        assert expected in shown
    summary = summarize(manifest_reader(objects, NAME), "v1")
    assert summary is not None
    assert [platform.size for platform in summary.platforms] == [
        m.config.size + sum(layer.size for layer in m.layers) for m in image.manifests
    ]
    assert "<script" not in page
    assert "http" not in page


def test_every_image_is_listed_and_every_link_leads_to_a_page(
    objects: Counting, store: MemoryStore, image: Image, tmp_path: Path
) -> None:
    names = ["alba/hello", "alba/hello/extra", "zebra"]
    for name in reversed(names):
        push(objects, store, image, "v1", name=name)
    links = re.findall(r'href="([^"]+)"', text(objects, layout.LIST_KEY))
    assert links == [f"images/{name}/index.html" for name in names]
    for link in links:
        back = re.findall(r'href="([^"]+)"', (tmp_path / link).read_text())
        assert [((tmp_path / link).parent / target).resolve() for target in back] == [tmp_path / "index.html"]


def test_the_same_tags_give_the_same_bytes(store: MemoryStore, image: Image, tmp_path: Path) -> None:
    first, second = DirectoryObjects(tmp_path / "a"), DirectoryObjects(tmp_path / "b")
    other = make_image(store, b"other")
    for objects, order in ((first, ("v1", "v2")), (second, ("v2", "v1"))):
        for tag in order:
            push(objects, store, image if tag == "v1" else other, tag)
    for key in (layout.page_key(NAME), layout.LIST_KEY):
        assert text(first, key) == text(second, key)


def test_a_push_reads_only_the_tags_that_moved(objects: Counting, store: MemoryStore, image: Image) -> None:
    push(objects, store, image, *(f"v{number}" for number in range(50)))
    objects.manifests_read = 0
    pages.update(objects, NAME)
    assert objects.manifests_read == 0
    push(objects, store, make_image(store, b"newer"), "v7")
    assert objects.manifests_read < 20
    assert len(re.findall("<section>", text(objects, layout.page_key(NAME)))) == 2


@pytest.mark.parametrize("damage", ["", "[]", "[1]", '[["x", {"tag": "v9"}]]', "{", "null"])
def test_a_damaged_summary_is_made_again(objects: Counting, store: MemoryStore, image: Image, damage: str) -> None:
    push(objects, store, image, "v1")
    good = text(objects, layout.page_key(NAME)), text(objects, layout.summary_key(NAME))
    objects.put(layout.summary_key(NAME), lambda: io.BytesIO(damage.encode()), layout.JSON_HEADERS)
    pages.update(objects, NAME)
    assert (text(objects, layout.page_key(NAME)), text(objects, layout.summary_key(NAME))) == good


def test_a_page_that_is_not_ours_stays(objects: Counting, store: MemoryStore, image: Image, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>My own</h1>")
    push(objects, store, image, "v1")
    assert (tmp_path / "index.html").read_text() == "<h1>My own</h1>"
    assert "v1" in text(objects, layout.page_key(NAME))


class Interrupted(DirectoryObjects):
    """A directory where another push comes in after each look at the tags, as often as it is told to."""

    def __init__(self, root: Path, store: MemoryStore, image: Image) -> None:
        super().__init__(root)
        self._root_again = root
        self._store = store
        self._image = image
        self.times = 3

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        found = list(super().walk(prefix))
        if self.times and prefix == layout.manifests_prefix(NAME):
            self.times -= 1
            push(DirectoryObjects(self._root_again), self._store, self._image, f"between-{self.times}")
        return iter(found)


def test_two_pushers_at_once_are_both_shown(store: MemoryStore, image: Image, tmp_path: Path) -> None:
    objects = Interrupted(tmp_path, store, image)
    push(objects, store, make_image(store, b"mine"), "mine")
    shown = words(text(objects, layout.page_key(NAME)))
    assert "mine" in shown
    assert "between-0, between-1, between-2" in shown


def test_hostile_annotations_are_text(objects: Counting, store: MemoryStore, image: Image) -> None:
    value = json.loads(image.index_bytes)
    evil = "<script>alert(1)</script>"
    value["annotations"] = {"org.opencontainers.image.created": evil}
    value["manifests"][0]["platform"]["os"] = evil
    data = json.dumps(value).encode()
    registry = StaticRegistry(objects, "dir:x")
    with registry.hold(NAME, [digest_of(data)]):
        registry.put_manifest(NAME, "v1", Manifest(media.INDEX, data))
    page = text(objects, layout.page_key(NAME))
    assert "<script" not in page
    assert evil in words(page)


def test_signatures_are_no_images_and_new_ones_come_first() -> None:
    def tag(name: str, created: str) -> TagSummary:
        return TagSummary(name, digest_of(name.encode()), created, (PlatformSize("linux/amd64", 3 << 20),))

    page = words(image_page(NAME, [tag("old", "2025"), tag("new", "2026"), tag(f"sha256-{'a' * 64}.sig", "2027")]))
    assert page.index("new") < page.index("old")
    assert "sig" not in page
    assert "3.0 MiB" in page


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"manifests": 1}', b'{"manifests": [1, {"platform": {"os": "linux"}, "digest": "x"}]}']
)
def test_what_cannot_be_read_is_left_out(data: bytes) -> None:
    summary = summarize(lambda _reference: data, "v1")
    assert summary is not None
    assert summary.digest == digest_of(data)
    assert summary.size == 0
