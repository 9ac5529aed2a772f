"""What an image is made of: Nix store paths, or the Go modules that a binary says it was built from.

Store paths come from the closure that a runner reported, else from the names in the layers. Everything is hostile; what
is found is data for a bill of materials and decides nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from albatros.errors import ImageError
from albatros.images.base import BlobSource
from albatros.images.goinfo import GoBuild, GoInfoFinder
from albatros.images.model import PlatformManifest
from albatros.images.streams import BLOCK, BoundedReader, unpacked
from albatros.images.tarstream import MemberKind, TarStream

MAX_COMPONENTS = 20_000
_STORE = re.compile(r"(?:^|/)nix/store/(?P<hash>[0-9a-df-np-sv-z]{32})-(?P<name>[A-Za-z0-9+._?=-]{1,211})(?:/|$)")
_VERSIONED = re.compile(r"(?P<name>.+?)-(?P<version>[^A-Za-z].*)")
_GO_VERSION = re.compile(r"go(?P<version>[0-9]\S*)")


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """One part; `purl` names it everywhere (package-url.org), `properties` say more in the words of its kind."""

    name: str
    version: str
    purl_type: str
    properties: tuple[tuple[str, str], ...] = field(default=())


def from_closure(data: bytes) -> tuple[Component, ...]:
    """The store paths of a closure as it is kept: a list of `{path, nar_hash, nar_size}`. Raises ImageError."""
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError("a stored closure is not JSON: the store is damaged") from error
    found: set[Component] = set()
    for entry in entries if isinstance(entries, list) else ():
        path = entry.get("path") if isinstance(entry, dict) else None
        if isinstance(path, str) and (component := _store_path(path, str(entry.get("nar_hash", "")))):
            found.add(component)
    return tuple(sorted(found))


def from_layers(blobs: BlobSource, manifest: PlatformManifest, max_size: int) -> tuple[Component, ...]:
    """The store paths that the layers have, else the modules of the Go binaries in them.

    Raises ImageError for a layer that cannot be read, TooLargeError for one that unpacks to more than `max_size` bytes.
    """
    paths: set[Component] = set()
    modules: set[Component] = set()
    for layer in manifest.layers:
        with blobs.open(layer.digest) as raw:
            archive = TarStream(BoundedReader(unpacked(raw), max_size, threading.Event()), layer=True)
            for member in archive:
                if component := _store_path(member.name, ""):
                    paths.add(component)
                elif member.kind is MemberKind.FILE and not paths:
                    modules.update(_go_modules(archive))
                if len(paths) + len(modules) > MAX_COMPONENTS:
                    raise ImageError(f"{manifest.platform} has more than {MAX_COMPONENTS} components")
    return tuple(sorted(paths or modules))


def union(several: Iterable[Sequence[Component]]) -> tuple[Component, ...]:
    """All components of several platforms, each once."""
    return tuple(sorted({component for components in several for component in components}))


def _store_path(path: str, nar_hash: str) -> Component | None:
    match = _STORE.search(path)
    if match is None:
        return None
    versioned = _VERSIONED.fullmatch(match["name"])
    name, version = (versioned["name"], versioned["version"]) if versioned else (match["name"], "")
    said = [("nix:store-path", f"/nix/store/{match['hash']}-{match['name']}")]
    if nar_hash:
        said.append(("nix:nar-hash", nar_hash))
    return Component(name, version, "generic", tuple(said))


def _go_modules(archive: TarStream) -> Iterable[Component]:
    finder = GoInfoFinder()
    while data := archive.read(BLOCK):
        finder.feed(data)
    build = finder.found
    return _components(build) if build is not None else ()


def _components(build: GoBuild) -> Iterable[Component]:
    version = _GO_VERSION.match(build.go_version)
    yield Component("std", version["version"] if version else "", "golang")
    for module in build.modules:
        said = (("go:sum", module.sum),) if module.sum else ()
        yield Component(module.path, module.version, "golang", said)
