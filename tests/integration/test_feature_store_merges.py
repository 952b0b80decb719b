"""What comes late, from before a merge, counts for the same reader in stream and lake."""

import shutil
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.contracts.user_changes import STREAM_GROUP, ChangeKind, UserChange
from feedrank_core.contracts.users import User
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake
from feedrank_feature_store.app import audit_skew
from feedrank_feature_store.settings import Settings
from feedrank_feature_store.stream.outbox import Changed
from feedrank_feature_store.stream.state import State, user_key
from stream_running import carry_out, copy_to_lake, publish

T0 = datetime.now(UTC) - timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics()
    return bus


def click(user: str, minutes: int) -> Interaction:
    at = T0 + minutes * MINUTE
    return Interaction(
        event_id=uuid.uuid4().hex,
        user_id=user,
        item_id="i1",
        event_type=InteractionType.CLICK,
        occurred_at=at,
        accepted_at=at,
    )


def profile(user: str, country: str, minutes: int) -> User:
    return User(user_id=user, country=country, accepted_at=T0 + minutes * MINUTE)


def order(user: str, minutes: int, into: str | None = None) -> UserChange:
    kind = ChangeKind.ERASE if into is None else ChangeKind.MERGE
    at = T0 + minutes * MINUTE
    change_id = uuid.uuid4().hex
    return UserChange(change_id=change_id, kind=kind, user_id=user, into=into, accepted_at=at)


def run_with(*orders: UserChange, lake, started, bus) -> None:
    """One process folds what there is, and orders that are carried out meanwhile."""
    with started() as running:
        running.fold()
        copy_to_lake(bus, lake)
        for change in orders:
            carry_out(bus, lake, change)
        running.fold()
        running.follower.save()


KNOWN_BEFORE = [click("u", 0), click("v", 0)]


@pytest.mark.parametrize(
    ("before", "orders", "late", "counted"),
    [
        (KNOWN_BEFORE, [order("u", 10, "v")], click("u", 1), {"v": 3}),
        ([], [order("u", 10, "v")], click("u", 1), {"v": 1}),
        (KNOWN_BEFORE, [order("u", 10, "v")], click("u", 11), {"u": 1, "v": 2}),
        (KNOWN_BEFORE, [order("u", 10, "v"), order("v", 20, "w")], click("u", 1), {"w": 3}),
        (KNOWN_BEFORE, [order("u", 10, "v"), order("v", 20, "u")], click("u", 1), {"u": 3}),
        (KNOWN_BEFORE, [order("v", 10, "w"), order("u", 20, "v")], click("u", 1), {"v": 2, "w": 1}),
        (KNOWN_BEFORE, [order("u", 10, "v"), order("u", 20)], click("u", 1), {"v": 2}),
        (KNOWN_BEFORE, [order("u", 10, "v"), order("v", 20)], click("u", 1), {}),
        ([], [order("u", 10, "v"), order("v", 20)], click("u", 1), {}),
        (
            KNOWN_BEFORE,
            [order("u", 10, "v"), order("v", 20, "w"), order("v", 30)],
            click("u", 1),
            {"w": 3},
        ),
    ],
)
def test_an_event_that_comes_late_counts_for_whom_both_say(
    tmp_path, started, bus, before, orders, late, counted
):
    settings = Settings(home=tmp_path)
    lake = Lake(settings.place.lake)
    publish(bus, *before)
    for change in orders:
        run_with(change, lake=lake, started=started, bus=bus)
    publish(bus, late)
    assert_both_count(counted, settings, lake, started, bus)


@pytest.mark.parametrize(
    ("orders", "counted"),
    [
        ([order("u", 10, "v"), order("v", 20, "w")], {"u": 1, "w": 3}),
        ([order("u", 10, "v"), order("v", 20, "w"), order("v", 30)], {"u": 1, "w": 3}),
    ],
)
def test_a_state_that_is_built_anew_learns_of_merges_from_the_lake(
    tmp_path, started, bus, orders, counted
):
    settings = Settings(home=tmp_path)
    lake = Lake(settings.place.lake)
    publish(bus, *KNOWN_BEFORE)
    run_with(*orders, lake=lake, started=started, bus=bus)
    shutil.rmtree(settings.place.stream)
    publish(bus, click("u", 1), click("u", 11))
    assert_both_count(counted, settings, lake, started, bus)


def test_orders_of_intakes_whose_clocks_differ_do_not_wait_for_ever(tmp_path, started, bus):
    lake = Lake(Settings(home=tmp_path).place.lake)
    publish(bus, click("u", 0))
    with started() as running:
        running.fold()
        copy_to_lake(bus, lake)
        for change in (order("u", 20, "v"), order("v", 10, "w"), order("u", 5, "w")):
            carry_out(bus, lake, change)
        running.fold()
        running.follower.save()
        assert bus.committed(USER_CHANGES, group=STREAM_GROUP) == {0: 3}


def assert_both_count(counted, settings, lake, started, bus) -> None:
    with started() as running:
        running.fold()
        running.follower.save()
        assert clicks_of(running.state, "uvw") == pytest.approx(counted)
    copy_to_lake(bus, lake)
    told = audit_skew(settings, wait_s=0).told
    # The counters of items keep what an erased reader did.
    assert [difference for difference in told if difference.kind == "user"] == []


def clicks_of(state: State, users: str) -> dict[str, float]:
    found = {user: state.users.find(state.reader, user_key(user)) for user in users}
    return {user: counted[0].max() for user, counted in found.items() if counted is not None}


U_FIRST, V_FIRST = ("u", "FR", 1), ("v", "SE", 0)


@pytest.mark.parametrize(
    ("before", "late", "country"),
    [
        ([], [U_FIRST], "FR"),
        ([V_FIRST], [U_FIRST], "SE"),
        ([U_FIRST], [V_FIRST], "SE"),
        ([U_FIRST, ("w", "DE", 2)], [], "DE"),
        ([("w", "DE", 2)], [U_FIRST], "DE"),
        ([U_FIRST], [("w", "DE", 2)], "DE"),
        ([U_FIRST, ("w", "DE", 2)], [V_FIRST], "SE"),
    ],
)
@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_of_merged_profiles_counts_what_the_reader_said_else_the_latest(
    tmp_path, started, bus, before, late, country, is_rebuilt
):
    settings = Settings(home=tmp_path)
    lake = Lake(settings.place.lake)
    publish(bus, click("v", 0), *(profile(*said) for said in before))
    with started() as running:
        running.fold()
        copy_to_lake(bus, lake)
        for change in (order("w", 10, "v"), order("u", 20, "v")):
            carry_out(bus, lake, change)
        running.fold()
        publish(bus, *(profile(*said) for said in late))
        running.fold()
        running.follower.save()
    copy_to_lake(bus, lake)
    if is_rebuilt:
        shutil.rmtree(settings.place.stream)
    with started() as running:
        running.fold()
        if is_rebuilt:
            running.state.waiting_users.mark(user_key("v"), 0, Changed.ALL)
        running.show()
        running.follower.save()
        assert running.online.read("v")["country"] == country
    assert audit_skew(settings, wait_s=0).told == []


@pytest.mark.parametrize(
    ("before", "late", "country"),
    [
        ([V_FIRST, U_FIRST], [], "FR"),
        ([("v", "SE", 2), U_FIRST], [], "SE"),
        ([V_FIRST, U_FIRST, ("w", "DE", 0)], [], "DE"),
        ([V_FIRST], [U_FIRST], "FR"),
        ([U_FIRST], [V_FIRST], "FR"),
    ],
)
@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_in_a_chain_of_merges_counts_the_latest_of_all_but_of_whom_has_it_last(
    tmp_path, started, bus, before, late, country, is_rebuilt
):
    settings = Settings(home=tmp_path)
    lake = Lake(settings.place.lake)
    publish(bus, *(click(user, 0) for user in "vw"), *(profile(*said) for said in before))
    with started() as running:
        running.fold()
        copy_to_lake(bus, lake)
        carry_out(bus, lake, order("u", 10, "v"))
        running.fold()
        publish(bus, *(profile(*said) for said in late))
        running.fold()
        running.follower.save()
    copy_to_lake(bus, lake)
    if is_rebuilt:
        shutil.rmtree(settings.place.stream)
    with started() as running:
        running.fold()
        carry_out(bus, lake, order("v", 20, "w"))
        running.fold()
        running.show()
        running.follower.save()
        assert running.online.read("w")["country"] == country
    assert audit_skew(settings, wait_s=0).told == []


@pytest.mark.parametrize(
    ("before", "late", "country"),
    [
        ([("v", "SE", 5)], [U_FIRST], "SE"),
        ([U_FIRST], [("v", "SE", 5)], "SE"),
        ([], [("v", "SE", 5), ("u", "FR", 6)], "FR"),
    ],
)
@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_in_a_circle_of_merges_a_profile_from_before_it_is_inherited(
    tmp_path, started, bus, before, late, country, is_rebuilt
):
    settings = Settings(home=tmp_path)
    lake = Lake(settings.place.lake)
    publish(bus, *KNOWN_BEFORE, *(profile(*said) for said in before))
    for change in (order("u", 10, "v"), order("v", 20, "u")):
        run_with(change, lake=lake, started=started, bus=bus)
    publish(bus, *(profile(*said) for said in late))
    copy_to_lake(bus, lake)
    if is_rebuilt:
        shutil.rmtree(settings.place.stream)
    with started() as running:
        running.fold()
        running.state.waiting_users.mark(user_key("u"), 0, Changed.ALL)
        running.show()
        running.follower.save()
        assert running.online.read("u")["country"] == country
    assert audit_skew(settings, wait_s=0).told == []
