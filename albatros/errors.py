"""Every error that Albatros raises on purpose, each with its problem+json type and HTTP status (RFC 9457).

A message says what happened, to what, and what to do next; it never holds a secret.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class AlbatrosError(Exception):
    """Base of all expected errors: `slug` ends the problem type's URI, `status` is the HTTP answer."""

    slug: ClassVar[str] = "internal"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UsageError(AlbatrosError):
    """A command or a call was used wrongly; the command line exits with 2."""

    slug = "usage"
    status = HTTPStatus.BAD_REQUEST
    title = "Wrong use"


class ConfigError(UsageError):
    """The server's configuration cannot be used."""

    slug = "config"
    title = "Unusable configuration"


class BadInputError(AlbatrosError):
    """Something that came from outside cannot be read."""

    slug = "bad-input"
    status = HTTPStatus.BAD_REQUEST
    title = "Unreadable input"


class UnauthorizedError(AlbatrosError):
    """No credential, or a wrong one."""

    slug = "unauthorized"
    status = HTTPStatus.UNAUTHORIZED
    title = "Not authorized"


class ForbiddenError(AlbatrosError):
    """The credential is good, and does not reach this far."""

    slug = "forbidden"
    status = HTTPStatus.FORBIDDEN
    title = "Forbidden"


class NotFoundError(AlbatrosError):
    """There is no such thing, or the caller may not know of it."""

    slug = "not-found"
    status = HTTPStatus.NOT_FOUND
    title = "Not found"


class ConflictError(AlbatrosError):
    """The thing is in a state that does not allow this."""

    slug = "conflict"
    status = HTTPStatus.CONFLICT
    title = "Conflict"


class LogGapError(ConflictError):
    """A piece of log came before an earlier one: `expected` is the number to send next."""

    def __init__(self, expected: int, detail: str) -> None:
        super().__init__(detail)
        self.expected = expected


class GoneError(AlbatrosError):
    """The thing was there and is closed for good."""

    slug = "gone"
    status = HTTPStatus.GONE
    title = "Gone"


class ProtocolError(AlbatrosError):
    """A runner and the server speak different versions of the runner protocol."""

    slug = "protocol"
    status = HTTPStatus.UPGRADE_REQUIRED
    title = "Protocol version differs"


class TooLargeError(AlbatrosError):
    """A body, file or manifest is over its limit in bytes."""

    slug = "too-large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "Too large"


class StoreError(AlbatrosError):
    """The blob store cannot be read or written."""

    slug = "store"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Blob store unavailable"


class StoreFullError(StoreError):
    """The blob store has no room left."""

    slug = "store-full"
    status = HTTPStatus.INSUFFICIENT_STORAGE
    title = "Blob store full"


class DatabaseUnavailableError(AlbatrosError):
    """The database is locked, full or unreachable; the same call may go through later."""

    slug = "database"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Database unavailable"


class SecretsUnreadableError(AlbatrosError):
    """A secret in the database cannot be decrypted with the keys that are there."""

    slug = "secrets-unreadable"
    title = "Secret unreadable"


class OverloadedError(AlbatrosError):
    """So much waits already that nothing more is taken; the same call may go through later."""

    slug = "overloaded"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Too much work waits"


class UnreachableError(AlbatrosError):
    """A client's call found no server, or one that is not ready."""

    slug = "unreachable"
    status = HTTPStatus.BAD_GATEWAY
    title = "Server unreachable"


class ImageError(AlbatrosError):
    """A container image, or what claims to be a part of one, is not what it has to be."""

    slug = "image"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Unusable image"


class RegistryError(AlbatrosError):
    """A registry refused something for good; trying again will not help."""

    slug = "registry"
    status = HTTPStatus.BAD_GATEWAY
    title = "Registry refused"


class RegistryUnavailableError(RegistryError):
    """A registry did not answer, or said to come back later; trying again may help."""

    slug = "registry-unavailable"
    title = "Registry unavailable"


class ForgeError(AlbatrosError):
    """A forge refused something for good."""

    slug = "forge"
    status = HTTPStatus.BAD_GATEWAY
    title = "Forge refused"


class ForgeUnavailableError(ForgeError):
    """A forge did not answer, or said to come back later: not before `after` seconds, if it said when."""

    slug = "forge-unavailable"
    title = "Forge unavailable"

    def __init__(self, detail: str, after: float | None = None) -> None:
        super().__init__(detail)
        self.after = after


class ExecutorError(AlbatrosError):
    """An executor could not start or stop a runner."""

    slug = "executor"
    title = "Executor failed"


class NoCapacityError(ExecutorError):
    """An executor has no place where this may run, and will have none as it is."""

    slug = "no-capacity"
    title = "No place to run"


class ExecutorUnavailableError(ExecutorError):
    """An executor does not answer, or has no time: whether it did what it was asked is not known; ask again later."""

    slug = "executor-unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Executor unavailable"


class EvaluationError(AlbatrosError):
    """What an evaluation reported cannot be turned into a plan."""

    slug = "evaluation"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Evaluation failed"
