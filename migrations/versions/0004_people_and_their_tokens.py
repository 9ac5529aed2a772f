"""People and their tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    op.create_table(
        "people",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("forge", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("login", sa.String(length=255), nullable=False),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("logged_in_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
        sa.UniqueConstraint("forge", "subject", name=op.f("uq_people_forge_subject")),
    )
    with op.batch_alter_table("people", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_people_login"), ["login"], unique=False)

    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("bound", sa.String(length=640), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("person_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True))
        batch_op.drop_constraint(batch_op.f("uq_tokens_name"), type_="unique")
        batch_op.create_index(
            "uq_tokens_name",
            ["name"],
            unique=True,
            postgresql_where=sa.text("person_id IS NULL"),
            sqlite_where=sa.text("person_id IS NULL"),
        )
        batch_op.create_index("uq_tokens_person_id_name", ["person_id", "name"], unique=True)
        batch_op.create_foreign_key(
            batch_op.f("fk_tokens_person_id"), "people", ["person_id"], ["id"], ondelete="CASCADE"
        )
    # The tokens that are there already are narrowed by nothing; new ones always say.
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.alter_column("bound", server_default=None)
