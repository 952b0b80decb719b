from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from feedrank_core.runtime.bus_memory import MemoryBus
from integration.bus_contract import LEASE_S, BusContract, Outage


class TestMemoryBus(BusContract):
    @pytest.fixture
    def bus(self) -> MemoryBus:
        return MemoryBus(lease_s=LEASE_S)

    @pytest.fixture
    def outage(self, bus: MemoryBus) -> Outage:
        @contextmanager
        def down() -> Iterator[None]:
            bus.is_down = True
            try:
                yield
            finally:
                bus.is_down = False

        return down
