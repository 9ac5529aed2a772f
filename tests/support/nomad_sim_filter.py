"""Nomad's filter expressions (go-bexpr), as far as lists are asked with them: comparisons, `and`, `or`, `not`."""

import re
from collections.abc import Callable
from typing import Any

from tests.support.nomad_sim_rows import Json

_TOKEN = re.compile(r'\s*(?:(\()|(\))|("(?:[^"\\]|\\.)*"|`[^`]*`)|(==|!=)|([\w./-]+))')
Test = Callable[[Json], bool]


class FilterError(Exception):
    """An expression that Nomad would not read."""


def parse_filter(text: str) -> Test:
    """The expression as a function of a row's document. Raises FilterError."""
    tokens: list[str] = []
    position = 0
    while position < len(text.rstrip()):
        found = _TOKEN.match(text, position)
        if found is None:
            raise FilterError(f"no match found at {position}")
        tokens.append(found[0].strip())
        position = found.end()
    parser = _Parser(tokens)
    test = parser.either()
    if parser.tokens:
        raise FilterError(f"no match found at {parser.tokens[0]}")
    return test


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def either(self) -> Test:
        tests = [self._both()]
        while self._take("or"):
            tests.append(self._both())
        return lambda row: any(test(row) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._take("and"):
            tests.append(self._one())
        return lambda row: all(test(row) for test in tests)

    def _one(self) -> Test:
        if self._take("not"):
            inner = self._one()
            return lambda row: not inner(row)
        if self._take("("):
            inner = self.either()
            if not self._take(")"):
                raise FilterError("no match found, expected: )")
            return inner
        return self._comparison(self._next())

    def _comparison(self, left: str) -> Test:
        if self._take("is"):
            negated, _ = self._take("not"), self._next()
            return lambda row: bool(_value(row, left)) is negated
        negated = self._take("not")
        operator = self._next()
        right = self._next()
        match operator:
            case "==" | "!=" | "matches" | "contains":
                pass
            case "in":
                left, right, operator = right, left, "contains"
            case _:
                raise FilterError(
                    f'no match found, expected: "!=", "==", "contains", "in", "is", "matches" not {operator}'
                )
        compares: dict[str, Callable[[Any], bool]] = {
            "==": lambda value: str(value) == _text(right),
            "!=": lambda value: str(value) != _text(right),
            "matches": lambda value: re.search(_text(right), str(value)) is not None,
            "contains": lambda value: _text(right) in (value or ""),
        }
        return lambda row: compares[operator](_value(row, left)) is not negated

    def _take(self, word: str) -> bool:
        if self.tokens and self.tokens[0] == word:
            self.tokens.pop(0)
            return True
        return False

    def _next(self) -> str:
        if not self.tokens:
            raise FilterError("no match found, expected: more")
        return self.tokens.pop(0)


def _text(token: str) -> str:
    return token[1:-1] if token[0] in '"`' else token


def _value(row: Json, selector: str) -> Any:
    value: Any = row
    for part in selector.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
