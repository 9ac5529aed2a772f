"""Flavors."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    with op.batch_alter_table("tag_heads", schema=None) as batch_op:
        batch_op.add_column(sa.Column("flavor", sa.String(length=255), nullable=False, server_default=""))
    with op.batch_alter_table("tag_heads", schema=None) as batch_op:
        batch_op.alter_column("flavor", server_default=None)
