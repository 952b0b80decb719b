"""Who and what features are about."""

from feast import Entity, ValueType

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.STRING,
    description="A reader, by the application's id.",
)
item = Entity(
    name="item",
    join_keys=["item_key"],
    value_type=ValueType.INT64,
    description="An item, by its stable 64-bit key.",
)
