"""Indexes for what waits and runs, so that looking for it does not look at all that ever ran."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision: str | None = "0014"

_OPEN = sa.text("ended_at IS NULL")


def upgrade() -> None:
    op.create_index(
        "ix_jobs_placed",
        "jobs",
        ["state", "kind", "system", "build_id", "id"],
        postgresql_where=_OPEN,
        sqlite_where=_OPEN,
    )
    op.create_index(
        "ix_builds_strangers",
        "builds",
        ["id"],
        postgresql_where=sa.text("ended_at IS NULL AND NOT trusted"),
        sqlite_where=sa.text("ended_at IS NULL AND trusted = 0"),
    )
    op.create_index("ix_attempts_open", "attempts", ["state", "executor"], postgresql_where=_OPEN, sqlite_where=_OPEN)
    op.drop_index("ix_attempts_state", "attempts")
