"""Rows of blobs: written after a blob's bytes, taken away before them.

Who may be told that a blob exists is known per Repo: a stranger who could ask for any digest would learn what others
keep. Whoever means to use a blob touches it in a transaction first; what was touched stays for the collector's grace.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from albatros.db.models import Blob, RepoBlob
from albatros.db.session import now
from albatros.db.upsert import insert
from albatros.domain.references import Digest


def record(session: Session, repo_id: int | None, digest: Digest, size: int) -> None:
    """Note that a blob's bytes (`size` of them) are in the store; a Repo that is named may be told so from now on."""
    row = insert(session, Blob).values(digest=digest, size=size, touched_at=now())
    session.execute(row.on_conflict_do_update(index_elements=["digest"], set_={"touched_at": row.excluded.touched_at}))
    if repo_id is not None:
        session.execute(insert(session, RepoBlob).values(repo_id=repo_id, digest=digest).on_conflict_do_nothing())


def known(session: Session, repo_id: int, digests: Collection[Digest]) -> set[Digest]:
    """Those of `digests` that this Repo uploaded or made itself and that are still there; each of them is touched."""
    wanted = select(Blob.digest).join(RepoBlob, RepoBlob.digest == Blob.digest)
    return _touch(session, wanted.where(RepoBlob.repo_id == repo_id, Blob.digest.in_(digests)))


def touch(session: Session, digests: Collection[Digest]) -> set[Digest]:
    """Say that blobs will be used: those returned are there and stay; the others have to be made again."""
    return _touch(session, select(Blob.digest).where(Blob.digest.in_(digests)))


def _touch(session: Session, wanted: Select[str]) -> set[Digest]:
    # Locked in one order, or two servers that touch the same blobs would wait for each other for ever.
    found = session.scalars(wanted.order_by(Blob.digest).with_for_update(of=Blob)).all()
    statement = update(Blob).where(Blob.digest.in_(found)).values(touched_at=now())
    session.execute(statement.execution_options(synchronize_session=False))
    return {Digest(digest) for digest in found}
