"""What sources were read as."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    op.create_table(
        "read_sources",
        sa.Column("repo_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("how", sa.String(length=80), nullable=False),
        sa.Column("parts", sa.Text(), nullable=False),
        sa.Column("blobs", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_read_sources_repo_id")),
        sa.PrimaryKeyConstraint("repo_id", "digest", "how", name=op.f("pk_read_sources")),
    )
    with op.batch_alter_table("read_sources", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_read_sources_digest"), ["digest"], unique=False)
