"""One request of `run.http`, from the Task's words to how the attempt ended.

A session of its own, no redirects: nothing of one Task reaches another. Values that come from Secrets
are blotted out of whatever comes back, should the server repeat them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp

from taskmaster import __version__
from taskmaster.api.patches import MESSAGE_CHARACTERS, Ended
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.agent.http_answer import BODY_BYTES, Answer, end_of
from taskmaster_worker.runner.text import safe_text

DEFAULT_HEADERS: Final = (("User-Agent", f"taskmaster-worker/{__version__}"), ("Accept-Encoding", "identity"))
CHUNK_BYTES: Final = 64 * 1024
HIDDEN: Final = "[hidden]"

SHORTEST_HIDDEN: Final = 4
"""Characters of the shortest value that is looked for in answers: shorter ones are everywhere."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


async def perform(call: Mapping[str, Any], *, started: Instant, now: Callable[[], Instant]) -> Ended:
    """Send a request whose headers have their values; return how the attempt ended, whatever came."""
    given = [(header["name"], header["value"]) for header in call.get("headers") or ()]
    for name, value in given:
        if _CONTROL.search(value):
            why = f"the value of header {name} has a line break or another control character"
            return failed(why, started=started, now=now())
    names = {name.lower() for name, _ in given}
    headers = [*given, *(default for default in DEFAULT_HEADERS if default[0].lower() not in names)]
    secret = [header["value"] for header in call.get("headers") or () if header.get("valueFrom")]
    try:
        answer = await _ask(call, headers, secret)
    except TimeoutError:
        seconds = call.get("timeoutSeconds")
        why = f"no answer within run.http.timeoutSeconds = {seconds} s" if seconds else "no answer in time"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        why = f"{type(error).__name__}: {hide(str(error), secret)}".removesuffix(": ")
    else:
        return end_of(answer, call.get("expectStatus"), started=started, now=now())
    return failed(why, started=started, now=now())


def failed(why: str, *, started: Instant, now: Instant) -> Ended:
    """Say that there was no answer."""
    message = safe_text(why)[:MESSAGE_CHARACTERS]
    return Ended(Outcome.FAILED, EndReason.REQUEST_FAILED, message, now, started)


def hide(text: str, values: Iterable[str]) -> str:
    """Return the text without the values."""
    for value in values:
        if len(value) >= SHORTEST_HIDDEN:
            text = text.replace(value, HIDDEN)
    return text


async def _ask(call: Mapping[str, Any], headers: list[tuple[str, str]], secret: list[str]) -> Answer:
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(
            call.get("method", "GET"),
            call["url"],
            headers=headers,
            skip_auto_headers=("Content-Type",),
            data=call["body"].encode() if call.get("body") else None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=call.get("timeoutSeconds")),
        ) as response,
    ):
        body, whole = await _body(response)
        for value in secret:
            if len(value) >= SHORTEST_HIDDEN:
                body = body.replace(value.encode(), HIDDEN.encode())
        told = {name.lower(): hide(value, secret) for name, value in response.headers.items()}
        return Answer(response.status, told, body, whole)


async def _body(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Read a body up to its bound; the rest of a longer one is left, and the connection closed."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        if len(body) + len(chunk) > BODY_BYTES:
            body += chunk[: BODY_BYTES - len(body)]
            response.close()
            return bytes(body), False
        body += chunk
    return bytes(body), True
