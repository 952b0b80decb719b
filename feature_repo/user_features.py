"""What is known of a reader. All of it is online: one reader is read at a request."""

from feast import FeatureView, Field
from feast.types import Array, Float64, Int64, String, UnixTimestamp
from feedrank_core.contracts.features import COUNTER_COLUMNS, RATES

from feature_repo.entities import user
from feature_repo.sources import user_counters_push, user_history_push, user_profile_source

user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    schema=[
        Field(name="country", dtype=String),
        Field(name="age_band", dtype=String),
        Field(name="platform", dtype=String),
        Field(name="interests", dtype=Array(String)),
    ],
    source=user_profile_source,
    description="As the application had last published it.",
)
user_counters = FeatureView(
    name="user_counters",
    entities=[user],
    schema=[
        *(Field(name=name, dtype=Float64) for name in COUNTER_COLUMNS),
        # Not an instant: Feast keeps these in whole seconds online.
        Field(name="counted_at_us", dtype=Int64),
    ],
    source=user_counters_push,
    description="State after the last event, of counted_at_us; features.counters.value_at ages it.",
)
user_history = FeatureView(
    name="user_history",
    entities=[user],
    schema=[
        Field(name="hist_item_key", dtype=Array(Int64)),
        Field(name="hist_action", dtype=Array(String)),
        Field(name="hist_at", dtype=Array(UnixTimestamp)),
        Field(name="top_categories", dtype=Array(String)),
        Field(name="top_category_shares", dtype=Array(Float64)),
        Field(name="top_creators", dtype=Array(String)),
        Field(name="top_creator_shares", dtype=Array(Float64)),
        *(Field(name=name, dtype=Float64) for name in RATES),
    ],
    source=user_history_push,
    description="The last engaged actions, oldest first, and the tastes and rates they add up to.",
)
