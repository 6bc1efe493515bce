"""What all kinds share: how models map to camelCase schemas, and the bounded types that fields are made of.

Every string, list and map has a bound: it protects etcd, and it is what lets the API server estimate the cost of the
validation rules. Attribute docstrings become the texts of `kubectl explain`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(min_length=1, max_length=253)]
"""The name of an object."""

Label = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS label (RFC 1123)."""

Word = Annotated[str, Field(max_length=64)]
"""One CamelCase word, such as a reason."""

Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
"""A time in RFC 3339."""

Count = Annotated[int, Field(ge=0, le=2_147_483_647)]

Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
"""A duration of at most a year."""

PositiveSeconds = Annotated[int, Field(ge=1, le=31_536_000)]

HTTPStatus = Annotated[int, Field(ge=100, le=599)]
ExitCode = Annotated[int, Field(ge=-2_147_483_648, le=2_147_483_647)]

FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""Any JSON object. A schema cannot bound it: its size is enforced by those who write it and by the API server."""

AnyJson = Annotated[Any, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""Any JSON value."""


ATOMIC: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}
"""A list that is replaced as a whole."""


def list_by(key: str) -> dict[str, Any]:
    """Return the schema's mark of a list whose items are told apart by a key."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


EnvName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable."""


class Model(BaseModel):
    """Base of all models: camelCase on the wire; unknown fields are ignored, so that old readers meet new writers."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        extra="ignore",
        frozen=True,
    )


class EnvVar(Model):
    """One environment variable."""

    name: EnvName
    """The name of the variable."""

    value: Annotated[str, Field(max_length=32_768)] = ""
    """The value of the variable; references to other variables are not expanded."""


EnvVars = Annotated[list[EnvVar], Field(max_length=128, json_schema_extra=list_by("name"))]


class Condition(Model):
    """One observation about an object, in the usual shape of Kubernetes."""

    type: Word
    """What is observed."""

    status: Annotated[str, Field(max_length=16, json_schema_extra={"enum": ["True", "False", "Unknown"]})]
    """Whether it holds: True, False or Unknown."""

    reason: Word = ""
    """Why, as one typed word."""

    message: Annotated[str, Field(max_length=1_024)] = ""
    """Why, for people."""

    last_transition_time: Time
    """When `status` last changed."""

    observed_generation: Count | None = None
    """The generation of the object that was observed; not set on Tasks, whose status has one for all conditions."""


Conditions = Annotated[list[Condition], Field(max_length=16, json_schema_extra=list_by("type"))]
