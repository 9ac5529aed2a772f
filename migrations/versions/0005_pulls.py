"""Pull requests: what their Builds know of them, approval, and commands in comments."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"

_FILLED = {"from_fork": sa.false(), "head_label": "", "needs_approval": sa.false(), "approved_by": ""}


def upgrade() -> None:
    with op.batch_alter_table("builds") as batch_op:
        batch_op.add_column(sa.Column("pull", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("from_fork", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("head_label", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("base_commit", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("needs_approval", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("approved_by", sa.String(length=255), nullable=True))
        batch_op.create_index(
            "ix_builds_pull",
            ["repo_id", "pull"],
            unique=False,
            postgresql_where=sa.text("pull IS NOT NULL"),
            sqlite_where=sa.text("pull IS NOT NULL"),
        )
    builds = sa.table("builds", *(sa.column(name) for name in _FILLED))
    op.execute(sa.update(builds).values(_FILLED))
    with op.batch_alter_table("builds") as batch_op:
        for name in _FILLED:
            batch_op.alter_column(name, nullable=False)
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.add_column(sa.Column("comment", sa.String(length=64), nullable=True))
        batch_op.create_index(
            "uq_deliveries_comment",
            ["repo_id", "comment"],
            unique=True,
            postgresql_where=sa.text("comment IS NOT NULL"),
            sqlite_where=sa.text("comment IS NOT NULL"),
        )
