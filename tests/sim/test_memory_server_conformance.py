"""The contract of an API server, on the in-memory one."""

import pytest
from tests.conformance.api_contract import ApiContract
from tests.sim.memory_api import MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.kube.api import Api


@pytest.fixture
def api() -> Api:
    return MemoryApi(MemoryServer())


@pytest.fixture
def namespace() -> str:
    return "default"


@pytest.mark.looptime
class TestMemoryServer(ApiContract):
    pass
