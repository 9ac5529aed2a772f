"""Credentials that a forge makes for clones of one repo each: short-lived, kept in memory alone, shared by Jobs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges import payload
from albatros.log import get_logger

log = get_logger(__name__)
MAX_KEPT = 1000
MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class CloneToken:
    """What git logs in with."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    token: CloneToken | None
    """None where the forge refused to make one."""
    until: datetime


class CloneTokens(ABC):
    """The tokens of one forge, for several threads. Each is handed out for `use`, and then has time to clone left."""

    use: timedelta

    def __init__(self, forge: str) -> None:
        self._forge = forge
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._making = tuple(threading.Lock() for _ in range(16))
        """One of them is held while a repo's token is made, so that Jobs that start at once share it."""

    def of(self, owner: str, name: str) -> CloneToken | None:
        """A token; None where the forge makes none. Raises ForgeUnavailableError."""
        repo = owner, name
        with self._making[hash(repo) % len(self._making)]:
            with self._lock:
                kept = self._kept.get(repo)
            if kept is not None and kept.until > datetime.now(UTC):
                return kept.token
            token = self._try(owner, name, told=kept is not None and kept.token is None)
            with self._lock:
                self._kept[repo] = _Kept(token, datetime.now(UTC) + self.use)
                self._kept.move_to_end(repo)
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            return token

    def _try(self, owner: str, name: str, *, told: bool) -> CloneToken | None:
        try:
            return self._make(owner, name)
        except ForgeUnavailableError:
            raise
        except ForgeError as error:
            if not told:
                log.warning(
                    "the forge makes no token for clones; runners get forges.clone_token, or forges.token without it",
                    forge=self._forge, repo=f"{owner}/{name}", error=error.detail,
                )  # fmt: skip
            return None

    @abstractmethod
    def _make(self, owner: str, name: str) -> CloneToken:
        """Have the forge make one. Raises ForgeError or ForgeUnavailableError."""

    def _read(self, answer: object, username: str = "") -> CloneToken:
        """A token out of an answer. Raises ForgeError for what git's credential helpers would not pass on."""
        made = payload.as_object(answer)
        return CloneToken(username or self._word(made.get("username")), self._word(made.get("token")))

    def _word(self, value: object) -> str:
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= MAX_LENGTH
            or not (value.isascii() and value.isprintable())
        ):
            raise ForgeError(f"{self._forge} answered with something that is no token for clones; check forges.url")
        return value
