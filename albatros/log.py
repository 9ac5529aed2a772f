"""Structured logging: one line an event, `key=value` pairs or JSON, on stderr.

Values known to be secret are registered once and masked in every line, whoever logs them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

_secrets: set[str] = set()
MASK = "***"


def mask(text: str) -> str:
    """Replace every registered secret in `text`."""
    for secret in _secrets:
        text = text.replace(secret, MASK)
    return text


def register_secrets(values: Iterable[str]) -> None:
    """Mask these values from now on; values shorter than six characters would mask ordinary words and are left out."""
    _secrets.update(value for value in values if len(value) >= 6)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    return dict(fields) if isinstance(fields, dict) else {}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        line = f"{stamp} {record.levelname.lower():7} {record.name}: {record.getMessage()}{pairs}"
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
        return mask(json.dumps(entry, default=str))


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' for c in text) else text


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
        self._logger.error(message, exc_info=True, extra={"fields": fields})


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
