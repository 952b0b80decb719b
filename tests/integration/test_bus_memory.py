from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from feedrank_core.runtime.bus_memory import MemoryBus
from integration.bus_contract import LEASE_S, BusContract, Drop, Outage


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

    @pytest.fixture
    def drop(self, bus: MemoryBus) -> Drop:
        return lambda topic, end: bus.drop(topic, dict.fromkeys(range(topic.partitions), end))
