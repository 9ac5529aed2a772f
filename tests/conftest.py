"""What every test can use: `needs` to ask for programs, and the servers of tests/services as fixtures."""

import signal

from hypothesis import HealthCheck, settings

from albatros.db import session
from tests.tools import needs, require

__all__ = ["needs", "require"]

# A shell lets what it starts in the background ignore Ctrl-C, and what tests start and interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A disk under load takes longer to write than a server may wait for.
session.BUSY_SECONDS = 200

# The same examples in every run, however long they take; `--hypothesis-profile default` looks at others.
settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
# Some minutes of the scheduler's model, each time elsewhere.
settings.register_profile("deep", max_examples=1000, stateful_step_count=80, database=None)

pytest_plugins = [
    "tests.skips",
    "tests.services.databases",
    "tests.services.postgres",
    "tests.services.registry",
    "tests.services.gitea_server",
    "tests.services.garage",
    "tests.services.nomad",
]
