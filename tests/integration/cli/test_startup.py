"""The command line starts fast: what a server needs is imported by the command that runs one."""

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
