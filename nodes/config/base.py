"""The base of all sections of a configuration, and types of values that several of them have."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from pipeline.placement import Tier

V = TypeVar("V")
K = TypeVar("K")


def tier(value: Any) -> Tier:
    """The tier of this label. Raises ValueError."""
    labels = {tier.label: tier for tier in Tier}
    if not isinstance(value, str) or value not in labels:
        raise ValueError("one of device, edge, cloud")
    return labels[value]


TierName: TypeAlias = Annotated[Tier, BeforeValidator(tier)]

# A frozen model holds a plain dict by reference, so the dict must refuse changes too.
Table: TypeAlias = Annotated[Mapping[K, V], AfterValidator(MappingProxyType)]


def empty() -> Mapping[Any, Any]:
    """The default of a table that may be left out."""
    return MappingProxyType({})


class Section(BaseModel):
    """No unknown keys, no silent conversions, no change after reading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
