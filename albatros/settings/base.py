"""What every section of the settings is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[int, Field(gt=0, description="seconds")]
Bytes = Annotated[int, Field(gt=0, description="bytes")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
MIB, GIB = 1 << 20, 1 << 30


class Section(BaseModel):
    """A table of the file: unknown keys are refused, and an error never quotes a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
