"""What a source's bytes were read as, known per Repo: not read again while the layers that they became are there."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from albatros.db import blobs
from albatros.db.models import ReadSource
from albatros.db.session import Database
from albatros.db.upsert import insert
from albatros.domain.references import Blob, Digest


class RepoSourceMemory:
    """What this Repo's sources were read as."""

    def __init__(self, database: Database, repo_id: int) -> None:
        self._database = database
        self._repo_id = repo_id

    def knows(self, digest: Digest) -> bool:
        """Whether the source was ever read, in whatever way."""
        one = select(ReadSource.digest).where(ReadSource.repo_id == self._repo_id, ReadSource.digest == digest).limit(1)
        with self._database.read() as session:
            return session.scalars(one).first() is not None

    def recall(self, digest: Digest, how: str) -> str | None:
        """What the source was read as, if every layer of it has a row, and is not to be collected now."""
        with self._database.write() as session:
            row = session.get(ReadSource, (self._repo_id, digest, how))
            if row is None:
                return None
            needed = {Digest(layer) for layer in row.blobs}
            return row.parts if blobs.touch(session, needed) == needed else None

    def remember(self, digest: Digest, how: str, parts: str, layers: Collection[Blob]) -> None:
        """Keep what the source was read as; two servers that read it at once agree on it."""
        values = {"repo_id": self._repo_id, "digest": digest, "how": how}
        found = {"parts": parts, "blobs": sorted({layer.digest for layer in layers})}
        with self._database.write() as session:
            row = insert(session, ReadSource).values(values | found)
            session.execute(row.on_conflict_do_update(index_elements=list(values), set_=found))
