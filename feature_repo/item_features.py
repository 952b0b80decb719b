"""What is known of an item. None of it is online: items travel in the bundle's packed matrices."""

from feast import FeatureView, Field
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp
from feedrank_core.contracts.features import COUNTER_COLUMNS, ITEM_STATISTICS_COLUMNS

from feature_repo.entities import item
from feature_repo.sources import (
    item_counters_source,
    item_profile_source,
    item_statistics_source,
)

item_profile = FeatureView(
    name="item_profile",
    entities=[item],
    schema=[
        Field(name="item_type", dtype=String),
        Field(name="creator_id", dtype=String),
        Field(name="category", dtype=String),
        Field(name="tags", dtype=Array(String)),
        Field(name="language", dtype=String),
        Field(name="text", dtype=String),
        Field(name="created_at", dtype=UnixTimestamp),
        Field(name="duration_s", dtype=Float64),
        Field(name="text_vector", dtype=Array(Float32)),
        Field(name="image_vector", dtype=Array(Float32)),
        Field(name="active", dtype=Bool),
    ],
    source=item_profile_source,
    online=False,
    description="As its publisher last sent it.",
)
item_statistics = FeatureView(
    name="item_statistics",
    entities=[item],
    schema=[Field(name=name, dtype=Float64) for name in ITEM_STATISTICS_COLUMNS],
    source=item_statistics_source,
    online=False,
    description="How the item had fared when the catalogue was written.",
)
item_counters = FeatureView(
    name="item_counters",
    entities=[item],
    schema=[
        *(Field(name=name, dtype=Float64) for name in COUNTER_COLUMNS),
        # Not an instant: Feast keeps these in whole seconds online.
        Field(name="counted_at_us", dtype=Int64),
    ],
    source=item_counters_source,
    online=False,
    description="State after the last event, of counted_at_us; features.counters.value_at ages it.",
)
