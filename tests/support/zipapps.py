"""Programs that stand where the runner's zipapp does, for tests of executors."""

import io
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Does what its token says, as the runners of FakeExecutor do.
OBEDIENT = """
import os, signal, sys, time
path = os.environ["ALBATROS_TOKEN_FILE"]
with open(path) as file:
    word = file.read()
os.unlink(path)
if word == "exit 3":
    print("the last words", file=sys.stderr)
    sys.exit(3)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit(0))
open(os.path.join(os.environ["ALBATROS_WORKDIR"], "ready"), "w").close()
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def zipapp(source: str) -> bytes:
    """A zipapp of one module."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", source)
    return buffer.getvalue()


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that another user can pass through, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="albatros-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
