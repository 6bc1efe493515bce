"""What a Task runs: a program, a script, a Python function or a request, and the environment it gets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import ATOMIC, EnvName, FreeForm, HTTPStatus, Model, Name, PositiveSeconds, list_by


class Script(Model):
    """A script and what interprets it."""

    interpreter: Annotated[str, Field(min_length=1, max_length=4_096)] = "/bin/sh"
    """The program that runs the script; it is given the path of a file with the source. Default /bin/sh."""

    source: Annotated[str, Field(min_length=1, max_length=65_536)]
    """The text of the script."""


class PythonCall(Model):
    """A call of a Python function of the worker's image, of /app, or of a ConfigMap mounted there."""

    callable: Annotated[
        str,
        Field(min_length=3, max_length=512, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"),
    ]
    """What to call, as module:function. Coroutine functions are awaited. The module is imported on the worker."""

    args: FreeForm | None = None
    """Keyword arguments of the call, any JSON."""


class KeySelector(Model):
    """One key of a Secret or ConfigMap of the Task's namespace."""

    name: Name
    """The name of the Secret or ConfigMap; the WorkerPool has to list it."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key in its data."""

    optional: bool = False
    """Whether to go on without it when it does not exist. Default false."""


class ValueSource(Model):
    """Where a value comes from; exactly one member is set. The worker reads it when the attempt starts."""

    secret_key_ref: KeySelector | None = None
    """A key of a Secret that the WorkerPool lists in secretNames."""

    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap that the WorkerPool lists in configMapNames."""


class TaskEnvVar(Model):
    """One environment variable of a Task."""

    name: EnvName
    """The name of the variable."""

    value: Annotated[str, Field(max_length=32_768)] | None = None
    """The value of the variable; references to other variables are not expanded."""

    value_from: ValueSource | None = None
    """Where to take the value from instead. It never appears in the Task's status or in our logs."""


TaskEnvVars = Annotated[list[TaskEnvVar], Field(max_length=128, json_schema_extra=list_by("name"))]


class HTTPMethod(StrEnum):
    """Methods of HTTP (RFC 9110, and PATCH of RFC 5789)."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    OPTIONS = "OPTIONS"


class HTTPHeader(Model):
    """One header of a request."""

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
    """The name of the header."""

    value: Annotated[str, Field(max_length=8_192)] | None = None
    """The value of the header."""

    value_from: ValueSource | None = None
    """Where to take the value from instead, such as a token. It never appears in the Task's status or in our logs."""


class HTTPCall(Model):
    """One HTTP request, made by the worker's agent; redirects are not followed."""

    method: HTTPMethod = HTTPMethod.GET
    """The method. Default GET."""

    url: Annotated[str, Field(max_length=2_048, pattern=r"^https?://.+$")]
    """Where to."""

    headers: Annotated[list[HTTPHeader], Field(max_length=64, json_schema_extra=ATOMIC)] | None = None
    """The headers of the request."""

    body: Annotated[str, Field(max_length=65_536)] | None = None
    """The body of the request. Name its type in a content-type header."""

    expect_status: Annotated[list[HTTPStatus], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)] | None = (
        None
    )
    """The statuses that count as success. Default: 200 to 299."""

    timeout_seconds: PositiveSeconds | None = None
    """How long to wait for the whole answer, in seconds. Default: until timeouts.attemptSeconds."""


class Run(Model):
    """What a Task runs; exactly one member is set."""

    command: (
        Annotated[
            list[Annotated[str, Field(max_length=131_072)]],
            Field(min_length=1, max_length=128, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """A program and its arguments, run without a shell. A name without a slash is looked up in PATH."""

    script: Script | None = None
    """A script, run by its interpreter."""

    python: PythonCall | None = None
    """A Python function, called in a process forked from one that has already imported the pool's `preload` modules."""

    http: HTTPCall | None = None
    """An HTTP request; the answer's status and body become the result."""
