"""Structured logging: one line an event, `key=value` pairs or JSON, on stderr.

Values known to be secret are registered once and masked in every line, whoever logs them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote

MASK = "***"
_secrets: tuple[str, ...] = ()
"""Longest first, so that no rest of one shows behind another that it contains. Replaced whole, for other threads."""


def mask(text: str) -> str:
    """Replace every registered secret in `text`."""
    for secret in _secrets:
        text = text.replace(secret, MASK)
    return text


def register_secrets(values: Iterable[str]) -> None:
    """Mask these values from now on, also as JSON, Python or a URL writes them.

    Values shorter than six characters would mask ordinary words and are left out.
    """
    global _secrets  # noqa: PLW0603 - one process has one log
    found = set(_secrets)
    for value in values:
        if len(value) >= 6:
            found |= {value, json.dumps(value)[1:-1], repr(value)[1:-1], quote(value, "")}
    _secrets = tuple(sorted(found, key=len, reverse=True))


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    return dict(fields) if isinstance(fields, dict) else {}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        line = f"{stamp} {record.levelname.lower():7} {record.name}: {_printable(mask(record.getMessage()))}{pairs}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return mask(line)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return mask(json.dumps(entry, default=lambda value: mask(str(value))))


def _quoted(value: object) -> str:
    text = mask(str(value))
    plain = text and text.isprintable() and not any(c in ' ="' for c in text)
    return text if plain else json.dumps(text)


def _printable(text: str) -> str:
    """One line: what a stranger wrote must not begin a line of its own or speak to the terminal."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


class Logger:
    """A logger whose calls take their data as keywords: `log.info("build queued", build=7)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: object) -> None:
        self._logger.debug(message, extra={"fields": fields})

    def info(self, message: str, **fields: object) -> None:
        self._logger.info(message, extra={"fields": fields})

    def warning(self, message: str, **fields: object) -> None:
        self._logger.warning(message, extra={"fields": fields})

    def error(self, message: str, **fields: object) -> None:
        self._logger.error(message, extra={"fields": fields})

    def exception(self, message: str, **fields: object) -> None:
        """Log with the trace of the exception being handled."""
        self._logger.error(message, exc_info=sys.exc_info(), extra={"fields": fields})


def get_logger(name: str) -> Logger:
    """The logger of a module: pass `__name__`."""
    return Logger(name)


def configure(*, level: str = "info", json_lines: bool = False) -> None:
    """Send every log line of this process to stderr at `level`, as text or as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if json_lines else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "sqlalchemy.engine", "alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
