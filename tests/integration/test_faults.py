"""kill -9 of the bus, the intake and the lake sink, some times each under load.

`feedrank bench faults` does the same for longer.
"""

from pathlib import Path

import pytest
from feedrank_cli.bench.faults import strike
from feedrank_cli.up import BusKind
from feedrank_core.runtime.kafka_broker import BrokerUnavailableError, jars, require_java

NUM_KILLS = 30
pytestmark = [pytest.mark.long, pytest.mark.timeout(1_500)]


@pytest.mark.parametrize("bus", list(BusKind))
def test_accepted_is_stored_and_each_once_whatever_is_killed(bus: BusKind, tmp_path: Path) -> None:
    if bus is BusKind.KAFKA:
        try:
            require_java()
            jars()
        except BrokerUnavailableError as error:
            pytest.skip(str(error))
    outcome = strike(tmp_path, bus, num_kills=NUM_KILLS, seed=11)
    assert outcome.kills == {"bus": NUM_KILLS, "ingestion": NUM_KILLS, "lake_sink": NUM_KILLS}
    assert outcome.accepted > 0
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.stored <= outcome.accepted + outcome.abandoned
