"""Where features come from: the feature tables, and pushes on top of them.

Paths are relative to the installation's home, which the store is opened with.
"""

from feast import FileSource, PushSource
from feedrank_core.contracts.features import Table


def _table(name: str, table: Table, timestamp: str) -> FileSource:
    return FileSource(name=name, path=f"features/{table.value}", timestamp_field=timestamp)


user_profile_source = _table("user_profile_table", Table.USER_PROFILES, "profile_at")
user_history_table = _table("user_history_table", Table.USERS, "as_of")
user_counters_table = _table("user_counters_table", Table.USER_COUNTERS, "event_timestamp")
item_profile_source = _table("item_profile_table", Table.CATALOGUE, "profile_at")
item_statistics_source = _table("item_statistics_table", Table.CATALOGUE, "as_of")
item_counters_source = _table("item_counters_table", Table.ITEM_COUNTERS, "event_timestamp")

user_counters_push = PushSource(name="user_counters_push", batch_source=user_counters_table)
user_history_push = PushSource(name="user_history_push", batch_source=user_history_table)
