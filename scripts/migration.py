"""Write the migration from the newest revision to the present models: `python scripts/migration.py "add flavors"`.

Read what it wrote before you commit it. As long as nothing was released, delete `0001_*` and run it with "initial".
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from albatros.db import migrate
from albatros.db.session import connect


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("message", help="what changes, in a few words")
    message = parser.parse_args().message
    settings = migrate.config()
    settings.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    number = len(list(ScriptDirectory.from_config(settings).walk_revisions())) + 1
    with tempfile.TemporaryDirectory() as directory:
        database = connect(f"sqlite:///{Path(directory) / 'old.sqlite3'}")
        with database.engine.connect() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
            made = command.revision(settings, message, autogenerate=True, rev_id=f"{number:04}")
        database.dispose()
    if made is None or isinstance(made, list):
        sys.exit("Alembic wrote nothing")
    path = Path(made.path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.strip().startswith("# ###")))
    ruff = str(Path(sys.executable).parent / "ruff")
    subprocess.run([ruff, "format", "--quiet", path], check=True)
    subprocess.run([ruff, "check", "--fix", "--quiet", path], check=True)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
