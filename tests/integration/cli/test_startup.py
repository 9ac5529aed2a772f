"""What is imported at the start: nothing heavy by the command line, and by a server nothing that few of them use."""

import subprocess
import sys

HEAVY = ("alembic", "fastapi", "httpx", "jinja2", "pydantic", "sqlalchemy", "uvicorn")
PROGRAM = f"""
import sys
from albatros.cli import parser
parser().format_help()
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def test_help_imports_nothing_heavy() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


SELDOM = ("alembic", "cryptography", "cyclonedx", "httpx", "obstore", "psycopg")


def test_a_server_imports_nothing_that_few_servers_use() -> None:
    program = f"import sys, albatros.bootstrap; print([name for name in {SELDOM!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
