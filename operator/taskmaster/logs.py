"""Structured logs: one JSON object per line on stderr, with a constant message and the varying parts as fields."""

from __future__ import annotations

import logging

from pythonjsonlogger.json import JsonFormatter


def configure(level: str) -> None:
    """Log to stderr from `level` on (DEBUG, INFO, WARNING or ERROR).

    Raises:
        ValueError: there is no such level.
    """
    handler = logging.StreamHandler()
    fields = {"levelname": "level", "name": "logger"}
    handler.setFormatter(JsonFormatter("{levelname}{name}{message}", style="{", rename_fields=fields, timestamp="time"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # kopf warns that it does not handle signals, which is what we want of it.
    logging.getLogger("kopf").setLevel(logging.ERROR)
