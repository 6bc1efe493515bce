"""What this package tells the outside about its traffic.

A Protocol instead of metrics: the coordinator and the agent count in their own ways, and tests count in a list.
"""

from typing import Protocol


class Observer(Protocol):
    """Receives one call per request, watch event and relist; must be quick and must not raise."""

    def request(self, verb: str, resource_plural: str, code: int, seconds: float) -> None:
        """Report one answered request; `code` 0 means that no answer came, subresources are `plural/subresource`."""
        ...

    def watch_event(self, resource_plural: str) -> None:
        """Report one event of a watch, bookmarks included."""
        ...

    def relist(self, resource_plural: str, reason: str) -> None:
        """Report that an informer starts a list: Started, Expired, NotFound or Malformed."""
        ...


class NullObserver:
    """Observes nothing."""

    def request(self, verb: str, resource_plural: str, code: int, seconds: float) -> None:
        """Ignore it."""

    def watch_event(self, resource_plural: str) -> None:
        """Ignore it."""

    def relist(self, resource_plural: str, reason: str) -> None:
        """Ignore it."""
