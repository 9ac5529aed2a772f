"""The cache of compressed layers, known per Repo: another Repo's layer is never shown to exist."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from albatros.db import blobs
from albatros.db.models import CachedLayer
from albatros.db.session import Database
from albatros.domain.references import Blob, Digest


class RepoLayerCache:
    """What this Repo's layers became under each codec."""

    def __init__(self, database: Database, repo_id: int) -> None:
        self._database = database
        self._repo_id = repo_id

    def lookup(self, diff_id: Digest, codec: str) -> Blob | None:
        """The blob that this layer became under this codec, if it is remembered, and not to be collected now."""
        with self._database.write() as session:
            row = session.get(CachedLayer, (self._repo_id, diff_id, codec))
            # Without the row of the blob, its bytes may be on their way out at this moment.
            if row is None or not blobs.touch(session, [Digest(row.digest)]):
                return None
            return Blob(Digest(row.digest), row.size)

    def store(self, diff_id: Digest, codec: str, blob: Blob) -> None:
        """Remember what a layer became; two servers that compressed it at once agree on it."""
        row = CachedLayer(repo_id=self._repo_id, diff_id=diff_id, codec=codec, digest=blob.digest, size=blob.size)
        try:
            with self._database.write() as session:
                session.merge(row)
        except IntegrityError:
            # Another server inserted the same row between our look and our insert; its bytes serve as well.
            return
