"""An interaction as the bus holds it, and what may be wrong with one: no reader may take it."""

from datetime import UTC, datetime

T0 = datetime(2026, 1, 2, tzinfo=UTC)

EVENT = {
    "event_type": "click",
    "event_id": "e1",
    "user_id": "u1",
    "item_id": "i1",
    "occurred_at": T0.isoformat(),
    "accepted_at": T0.isoformat(),
}

POISON: dict[str, tuple[dict[str, object], str]] = {
    "field": ({"mood": "good"}, "mood: Extra inputs are not permitted"),
    "version": ({"schema_version": 2}, "schema_version: Extra inputs are not permitted"),
    "type": ({"event_type": "stare"}, "event_type: Input should be"),
    "time": ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at: Value error"),
    "zone": ({"occurred_at": "2026-01-02T00:00:00"}, "occurred_at: Input should have timezone"),
    "id": ({"user_id": "a\nb"}, "user_id: String should match"),
    "no id": ({"event_id": ""}, "event_id: String should have at least 1 character"),
    "long id": ({"item_id": "i" * 129}, "item_id: String should have at most 128 characters"),
    "request": ({"request_id": "a\u2028b"}, "request_id: String should match"),
    "place": ({"position": -1}, "position: Input should be greater than or equal to 0"),
    "dwell": ({"dwell_s": 86_401.0}, "dwell_s: Input should be less than or equal to 86400"),
    "view": ({"event_type": "view"}, "record: Value error, dwell_s is required"),
}
"""By name: what is changed of EVENT, and how the reason begins."""
