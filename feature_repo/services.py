"""Feature services: what a model asks for by one name."""

from feast import FeatureService

from feature_repo.entities import item, user
from feature_repo.item_features import item_counters, item_profile, item_statistics
from feature_repo.user_features import user_counters, user_history, user_profile

user_encoder = FeatureService(
    name="user_encoder",
    features=[user_profile, user_counters, user_history],
    description="What the user tower reads at a request.",
)
user_training = FeatureService(
    name="user_training",
    features=[user_profile, user_counters],
    description="Of a reader, as of a training example; histories are cut from the engagements.",
)
item_training = FeatureService(
    name="item_training",
    features=[item_counters],
    description="Of an item, as of a training example.",
)

ONLINE_VIEWS = (user_profile, user_counters, user_history)
OFFLINE_VIEWS = (item_profile, item_statistics, item_counters)
DEFINITIONS = (
    user,
    item,
    *ONLINE_VIEWS,
    *OFFLINE_VIEWS,
    user_encoder,
    user_training,
    item_training,
)
"""Everything that `apply` registers."""
