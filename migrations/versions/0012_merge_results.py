"""Merge results of pull requests."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision: str | None = "0011"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NEW_MERGE = sa.text("merge_into IS NOT NULL AND rerun_of IS NULL")


def upgrade() -> None:
    op.create_table(
        "pulls",
        sa.Column("id", _ID, nullable=False),
        sa.Column("repo_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("ref", sa.String(length=1024), nullable=False),
        sa.Column("head_ref", sa.String(length=1024), nullable=False),
        sa.Column("base_ref", sa.String(length=1024), nullable=False),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("from_fork", sa.Boolean(), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("built_head", sa.String(length=64), nullable=True),
        sa.Column("built_base", sa.String(length=64), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_pulls_repo_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pulls")),
        sa.UniqueConstraint("repo_id", "number", name=op.f("uq_pulls_repo_id_number")),
    )
    with op.batch_alter_table("pulls") as batch_op:
        batch_op.create_index(batch_op.f("ix_pulls_repo_id_head_ref"), ["repo_id", "head_ref"], unique=False)
        batch_op.create_index(batch_op.f("ix_pulls_repo_id_base_ref"), ["repo_id", "base_ref"], unique=False)
    with op.batch_alter_table("builds") as batch_op:
        batch_op.add_column(sa.Column("merge_into", sa.String(length=1024), nullable=True))
        batch_op.create_index(
            "uq_builds_merge",
            ["repo_id", "ref", "sequence"],
            unique=True,
            postgresql_where=_NEW_MERGE,
            sqlite_where=_NEW_MERGE,
        )
