"""The Job's log on its way to the server, in numbered pieces that survive a broken connection.

What is to be sent lies in a spool file, never in memory. At most `limit` bytes are sent: the first half as it comes,
and of what follows the newest bytes, kept in memory until the end. Known secrets are masked before anything is kept.
"""

import os
import sys
import threading
import time
from collections import deque

from albatros.runner.failure import JobFailedError, LeaseLostError
from albatros.runner.masking import Masker
from albatros.runner.protocol import Server

PIECE_BYTES = 64 << 10
GATHER_SECONDS = 0.1
NOTE_BYTES = 200
"""Room for the line that says how much was left out."""


class LogStream:
    """Takes lines from any thread; one thread of its own sends them."""

    def __init__(self, server: Server, spool: str, limit: int, secrets: list[str], first: str = "") -> None:
        """`first` is a line that is sent before this returns, while nothing else wants the interpreter.

        Raises LeaseLostError when the server wants to hear no more.
        """
        self._server = server
        self._file = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._masker = Masker(secrets)
        self._changed = threading.Condition()
        self._head_left = max(limit // 2, 1)
        self._tail: deque[bytes] = deque()
        self._tail_room = max(limit - limit // 2 - NOTE_BYTES, 0)
        self._tail_bytes = 0
        self._dropped = 0
        self._written = 0
        self._closed = False
        self._starts = [0]
        """Where each piece begins in the spool; the last entry is where the next one will."""
        self._next = 0
        self._last_sent = 0.0
        if first:
            self.line(first)
            self._send_piece()
        self._thread = threading.Thread(target=self._send_all, name="log", daemon=True)
        self._thread.start()

    def line(self, text: str) -> None:
        """Add one line."""
        data = text.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"\n    ")
        with self._changed:
            if not self._closed:
                self._keep(self._masker.feed(data + b"\n"))
                self._changed.notify_all()

    def mask(self, text: str) -> str:
        """A text that goes to the server by another way than the log, without its secrets."""
        return self._masker.whole(text)

    def close(self) -> tuple[int, int]:
        """Send what is left and end; how many pieces and bytes the log has. Raises LeaseLostError."""
        with self._changed:
            if not self._closed:
                self._keep(self._masker.flush())
                self._flush_tail()
                self._closed = True
                self._changed.notify_all()
        self._thread.join()
        if self._server.lost.is_set():
            raise LeaseLostError("The Attempt was closed while its log was sent.")
        return len(self._starts) - 1, self._written

    def _keep(self, data: bytes) -> None:
        head, rest = data[: self._head_left], data[self._head_left :]
        if head:
            self._append(head)
            self._head_left -= len(head)
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes > self._tail_room and self._tail:
                gone = self._tail.popleft()
                self._tail_bytes -= len(gone)
                self._dropped += len(gone)

    def _flush_tail(self) -> None:
        if self._dropped:
            self._append(f"\n[albatros] … {self._dropped} bytes of log were left out here …\n".encode()[:NOTE_BYTES])
        for data in self._tail:
            self._append(data)
        self._tail.clear()

    def _append(self, data: bytes) -> None:
        while data:
            count = os.pwrite(self._file, data, self._written)
            self._written += count
            data = data[count:]

    def _send_all(self) -> None:
        """The sending thread: the first line at once, later ones gathered for a moment."""
        try:
            while self._wait():
                self._gather(self._last_sent + GATHER_SECONDS - time.monotonic())
                self._send_piece()
        except LeaseLostError as error:
            print(f"albatros-runner: the log can no longer be sent: {error}", file=sys.stderr)
        finally:
            self._server.hang_up()

    def _send_piece(self) -> None:
        """Send the next piece. Raises LeaseLostError, also when the server refuses a piece."""
        seq = self._next
        try:
            seq = self._server.put_log(seq, self._starts[seq], self._piece(seq))
        except JobFailedError as error:
            self._server.lost.set()
            raise LeaseLostError(error.message) from error
        # A server that expects more than was ever sent is given what there is.
        self._next = min(seq, len(self._starts) - 1)
        self._last_sent = time.monotonic()

    def _wait(self) -> bool:
        """Wait until there is something to send; false when all is sent and the log is closed."""
        with self._changed:
            while self._next == len(self._starts) - 1 and self._starts[-1] == self._written:
                if self._closed:
                    return False
                self._changed.wait()
            return True

    def _gather(self, seconds: float) -> None:
        """Let more lines come before the next piece, unless there will be none."""
        with self._changed:
            if seconds > 0:
                self._changed.wait_for(lambda: self._closed, seconds)

    def _piece(self, seq: int) -> bytes:
        with self._changed:
            if seq == len(self._starts) - 1:
                self._starts.append(min(self._starts[-1] + PIECE_BYTES, self._written))
            start, end = self._starts[seq], self._starts[seq + 1]
        return os.pread(self._file, end - start, start)
