"""An unchanged push as the server's own threads do it: its store, what it remembers of a Repo, no process to start."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from albatros.db import blobs
from albatros.db.layers import RepoLayerCache
from albatros.db.models import Base
from albatros.db.session import Database, connect
from albatros.db.sources import RepoSourceMemory
from albatros.domain.references import Digest, RegistryUrl
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import Source
from albatros.images.publish import publish
from albatros.registries.opening import open_registry
from albatros.store.base import CHUNK
from albatros.store.files import FileStore
from tests.support.rows import add_repo


def unchanged_in_server(url: str, archives: Sequence[Path], name: str, tag: str) -> float:
    """Publish the archives out of a store, and once more; seconds of the second time."""
    with tempfile.TemporaryDirectory(prefix="albatros-bench-") as directory:
        database = connect(f"sqlite:///{directory}/albatros.sqlite3")
        Base.metadata.create_all(database.engine)
        with database.write() as session:
            repo = add_repo(session, "bench").id
        server = _Server(database, FileStore(Path(directory) / "store"), repo, RegistryUrl.parse(url))
        sources = [server.upload(archive) for archive in archives]
        server.push(sources, name, tag)
        start = time.perf_counter()
        sent = server.push(sources, name, tag)
        seconds = time.perf_counter() - start
        database.dispose()
    if sent:
        raise RuntimeError(f"{sent} bytes were sent by an unchanged push")
    return seconds


class _Server:
    def __init__(self, database: Database, store: FileStore, repo: int, url: RegistryUrl) -> None:
        self._database = database
        self._store = store
        self._repo = repo
        self._url = url

    def upload(self, archive: Path) -> Source:
        """What a runner does with an output."""
        with archive.open("rb") as file, self._store.writer() as writer:
            while data := file.read(CHUNK):
                writer.write(data)
            blob = writer.commit()
        return Source(archive.name, partial(self._store.open, blob.digest), blob.size, digest=blob.digest)

    def push(self, sources: Sequence[Source], name: str, tag: str) -> int:
        """Assemble and publish; the bytes sent."""
        cache, memory = RepoLayerCache(self._database, self._repo), RepoSourceMemory(self._database, self._repo)
        image = assemble(sources, self._store, cache, AssembleOptions(), memory)
        with self._database.write() as session:
            for blob in image.all_blobs():
                blobs.record(session, self._repo, Digest(blob.digest), blob.size)
        registry = open_registry(self._url)
        try:
            return publish(image, self._store, registry, name, [tag]).bytes_sent
        finally:
            registry.close()
