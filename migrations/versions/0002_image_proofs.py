"""Proofs of images."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    op.create_table(
        "image_proofs",
        sa.Column("image_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_image_proofs_image_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id", "digest", name=op.f("pk_image_proofs")),
    )
