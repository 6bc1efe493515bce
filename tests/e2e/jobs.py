"""User code of the tests: the workers of a `Space` have it at /app."""

import asyncio
import hashlib
import http.server
import json
import time
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from taskmaster_worker import Cancelled, Fail, RetryAfter, context, task

PORT = 8_099


@task
def order(customer: int, items: list[str], rush: bool = False) -> dict[str, Any]:
    """Say what it was called with."""
    return {"customer": customer, "items": items, "rush": rush}


@task
def raises(kind: str) -> None:
    """Raise an exception whose type or content decides about the retry."""
    match kind:
        case "Fail":
            raise Fail("no such customer")
        case "RetryAfter" if context.attempt == 1:
            raise RetryAfter(3, "the other side is busy")
        case "JSONDecodeError":
            json.loads("{")


@task
def once_more(fail: bool = False) -> Any:
    """Return what the run before has saved, and save that this one was there."""
    before = context.last_checkpoint
    context.checkpoint({"attempt": context.attempt})
    if fail:
        raise LookupError("as it was told")
    return before


@task
def row_by_row() -> dict[str, Any]:
    """Stop at the third row, until a second attempt goes on from there."""
    if context.last_checkpoint is not None:
        context.progress(10, 10, "done")
        return {"from": context.last_checkpoint["row"], "attempt": context.attempt}
    context.progress(current=3, total=10, message="loading rows")
    context.checkpoint({"row": 3})
    context.logger.info("three rows are safe")
    time.sleep(300)
    raise AssertionError("nobody has stopped it")


@task
def tidies_up() -> None:
    """Be told of the end by an exception."""
    try:
        print("waiting", flush=True)
        time.sleep(300)
    except Cancelled:
        context.logger.info("tidied up")
        raise


@task
async def tidies_up_async() -> None:
    """The same, in a coroutine."""
    try:
        print("waiting", flush=True)
        await asyncio.sleep(300)
    except asyncio.CancelledError:
        context.logger.info("tidied up")
        raise


@task(cancel="flag")
def looks_up() -> None:
    """Be told of the end by a flag."""
    print("waiting", flush=True)
    while not context.cancelled:
        time.sleep(0.05)
    context.logger.info("tidied up")


@task
def knows() -> dict[str, Any]:
    """Say what the context says."""
    about = {"name": context.name, "namespace": context.namespace, "uid": context.uid, "attempt": context.attempt}
    state = {"dependencies": context.dependencies, "checkpoint": context.last_checkpoint}
    return {**about, **state, "cancelled": context.cancelled}


def large(characters: int) -> str:
    """Return a text."""
    return "x" * characters


def unheard_of() -> object:
    """Return what JSON does not know."""
    return {1, 2, 3}


def advance(value: int, step: int) -> int:
    """One step of a computation in which each step counts once, and in its place."""
    return (value * 31 + step) % 1_000_003


@task
def steps(count: int, seconds: float) -> dict[str, Any]:
    """Compute step by step, each of them safe before the next one."""
    state = context.last_checkpoint or {"step": 0, "value": 1, "began": {}}
    state["began"][str(context.attempt)] = state["step"]
    for step in range(state["step"], count):
        print(f"step {step}", flush=True)
        time.sleep(seconds)
        state["value"] = advance(state["value"], step)
        state["step"] = step + 1
        context.progress(step + 1, count)
        context.checkpoint(state)
    return dict(state)


class _Handler(http.server.BaseHTTPRequestHandler):
    """`/echo` says what was asked, `/busy` wants to be asked again, `/slow` never ends; other paths are statuses."""

    asked: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/echo":
            self._answer(200, json.dumps(self._heard(url.query)), {"content-type": "application/json"})
        elif url.path == "/busy" and url.query not in self.asked:
            self.asked.add(url.query)
            self._answer(503, "later", {"retry-after": "3"})
        elif url.path == "/slow":
            time.sleep(300)
        else:
            self._answer(200 if url.path == "/busy" else int(url.path[1:]), f"you asked for {url.path}", {})

    do_POST = do_GET

    def _heard(self, query: str) -> dict[str, Any]:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        digest = hashlib.sha256(headers.get("authorization", "").encode()).hexdigest()
        return {"method": self.command, "headers": headers, "digest": digest, "body": body, "query": parse_qs(query)}

    def _answer(self, status: int, body: str, headers: dict[str, str]) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def serve() -> None:
    """Answer HTTP requests until somebody ends it."""
    server = http.server.ThreadingHTTPServer(("", PORT), _Handler)
    server.daemon_threads = True
    server.serve_forever()
