"""Turns Nix's `--log-format internal-json` into plain lines for people, and remembers what failed.

The format is Nix's own (src/libutil/logging.cc): a line each, `@nix ` before a JSON object. A hostile builder can print
such lines too, but Nix wraps what a builder prints into one of its own, so only Nix is believed.
"""

import json
import re
from collections import deque
from collections.abc import Callable
from typing import cast

ACTIVITY_BUILD = 105
RESULT_BUILD_LINE, RESULT_PHASE, RESULT_POST_BUILD_LINE = 101, 104, 107
LEVEL_ERROR, LEVEL_NOTICE = 0, 2
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
KEPT_LINES = 40
SHOW_TRACE = "(use '--show-trace' to show detailed location information)"


class NixLog:
    """One Nix command's stderr: give it every line, and read `errors` when the command has ended."""

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self._sink = sink
        self._builds: dict[int, str] = {}
        self._seen_builds = 0
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        """The newest lines that builders printed."""
        self.errors: list[str] = []
        """Nix's own error messages, without colours."""

    def take(self, line: str) -> None:
        """Read one line of stderr."""
        if not line.startswith("@nix "):
            self._plain(line)
            return
        try:
            event: object = json.loads(line[5:])
        except ValueError:
            self._plain(line)
            return
        if isinstance(event, dict):
            self._event(cast("dict[str, object]", event))

    def _write(self, text: str) -> None:
        if self._sink is not None:
            self._sink(text)

    def error_text(self) -> str:
        """All that Nix complained of, for a message."""
        return "\n".join(self.errors)

    def _plain(self, line: str) -> None:
        text = ANSI.sub("", line)
        # git, which Nix starts, says why in lines of its own.
        if text.startswith(("error:", "fatal:")):
            self.errors.append(text)
        elif text == SHOW_TRACE:
            return
        elif self.errors and not text.startswith("warning:"):
            self.errors[-1] += "\n" + text
        if text.strip():
            self._write(text)

    def _event(self, event: dict[str, object]) -> None:
        action, number = event.get("action"), event.get("id")
        if action == "msg":
            self._message(event)
        elif not isinstance(number, int):
            return
        elif action == "start" and event.get("type") == ACTIVITY_BUILD:
            self._start(number, _field(event, 0))
        elif action == "stop":
            self._builds.pop(number, None)
        elif action == "result":
            self._result(number, event)

    def _start(self, number: int, drv_path: str) -> None:
        self._builds[number] = short_name(drv_path)
        self._seen_builds += 1
        self._write(f"building {drv_path}")

    def _result(self, number: int, event: dict[str, object]) -> None:
        kind, name = event.get("type"), self._builds.get(number)
        if kind == RESULT_PHASE and name is not None:
            self._write(f"{name}: {_field(event, 0)}")
        elif kind in {RESULT_BUILD_LINE, RESULT_POST_BUILD_LINE}:
            text = ANSI.sub("", _field(event, 0))
            self.last_lines.append(text)
            several = self._seen_builds > 1
            self._write(f"{name}> {text}" if several and name is not None else text)

    def _message(self, event: dict[str, object]) -> None:
        level, message = event.get("level"), event.get("msg")
        if not isinstance(message, str) or not isinstance(level, int) or level > LEVEL_NOTICE:
            return
        text = ANSI.sub("", message).replace(SHOW_TRACE, "").rstrip()
        if level == LEVEL_ERROR:
            self.errors.append(text)
        self._write(text)


def _field(event: dict[str, object], index: int) -> str:
    fields = event.get("fields")
    return str(fields[index]) if isinstance(fields, list) and len(fields) > index else ""


def short_name(drv_path: str) -> str:
    """`hello` for /nix/store/….-hello.drv."""
    return drv_path.rpartition("/")[2].removesuffix(".drv").partition("-")[2] or drv_path
