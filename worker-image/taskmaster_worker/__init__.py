"""The worker of Taskmaster: the agent that talks to Kubernetes, the runner that runs user code, and the code's SDK.

The SDK's names are what user code imports from here. They are loaded when they are asked for, so that the processes of
the runner pay nothing for them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taskmaster_worker.sdk.context import context
    from taskmaster_worker.sdk.errors import ArgumentsError, Cancelled, CheckpointError, Fail, RetryAfter
    from taskmaster_worker.sdk.task import task

__all__ = ["ArgumentsError", "Cancelled", "CheckpointError", "Fail", "RetryAfter", "context", "task"]

_MODULES = {"context": "context", "task": "task"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.sdk.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
