"""Making: what makes images out of rows of the queue, a Build's or a script's, holds one of them at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Build, ImageRequest
from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.flows.proofs import ProofMaker
from albatros.settings import Settings
from albatros.store.base import BlobStore

if TYPE_CHECKING:
    from albatros.images.keys import SigningKey

LEASE = timedelta(minutes=2)
Row = TypeVar("Row", Build, ImageRequest)


class Maker(ABC, Generic[Row]):
    """Claims rows under its `holder`, and renews a claim for as long as the work takes."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        signals: Signals,
        settings: Settings,
        holder: str,
        key: SigningKey | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._signals = signals
        self._settings = settings
        self._proofs = ProofMaker(store, settings, key)
        self.holder = holder

    @abstractmethod
    def _claim_due(self, session: Session) -> Row | None:
        """Hold the oldest row that is due, for `LEASE`."""

    def claim(self) -> Row | None:
        """Hold a row that is due; renew with `renew` while it is worked on."""
        with self._database.write() as session:
            return self._claim_due(session)

    def renew(self, row: Row) -> bool:
        """Hold the row for longer; False when another claim took it."""
        with self._database.write() as session:
            return queue.renew(session, type(row), [row.id], row.holder or "", LEASE)
