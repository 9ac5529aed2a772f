"""How Alembic runs: in the transaction of whoever called `albatros.db.migrate`, or of `scripts/migration.py`."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, Enum

from albatros.db.models import Base


def _render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Enums are plain text columns: a new member must not look like a change of the table."""
    return f"sa.String(length={item.length})" if kind == "type" and isinstance(item, Enum) else False


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite changes a table by copying it.
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_render_item,
        transactional_ddl=True,
    )
    context.run_migrations()


run()
