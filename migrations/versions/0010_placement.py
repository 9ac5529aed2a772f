"""Where an executor has an Attempt."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"


def upgrade() -> None:
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("allocation", sa.String(length=64), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("placement", sa.JSON(none_as_null=True), nullable=True))
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.alter_column("allocation", server_default=None)
