"""What a node draws, in the configuration: watts, or that the node measures them."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from pydantic import Field, model_validator

from nodes.config.base import Section

MEASURED: Final = "measured"


class PowerSection(Section):
    """What a node draws, for plans by energy."""

    idle: float = Field(ge=0, description="watts without work, at least 0")
    busy: float = Field(ge=0, description="watts while it computes, at least idle's")

    @model_validator(mode="after")
    def _work_draws_more(self) -> PowerSection:
        if self.busy < self.idle:
            raise ValueError(f"busy is {self.busy:g} W and idle {self.idle:g} W; a node at work draws at least as much")
        return self


Power: TypeAlias = PowerSection | Literal["measured"]
