"""Which builder of the operator's own takes a commit, if one does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from albatros.domain.refs import matches_any


@dataclass(frozen=True, slots=True)
class Assignment:
    """A builder with what it is for: globs of owner/name on one forge, and globs of refs."""

    builder: str
    forge: str
    repos: tuple[str, ...]
    refs: tuple[str, ...]


def builder_for(
    assignments: Iterable[Assignment], forge: str, full_name: str, ref: str, *, trusted: bool, from_fork: bool
) -> str:
    """The name of the first builder that covers a repo's ref; empty when none does.

    It runs with the operator's own credentials, so never for a fork, nor for what nobody who may push stands for:
    such a commit is built as that of any other repo, in the sandbox.
    """
    if from_fork or not trusted:
        return ""
    covering = (
        one.builder
        for one in assignments
        if one.forge == forge and matches_any(full_name, one.repos) and matches_any(ref, one.refs)
    )
    return next(covering, "")
