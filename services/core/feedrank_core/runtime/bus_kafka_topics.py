"""How topics keep their records on Kafka, as the contracts say, and whether those there do."""

# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import kafka
from kafka.admin import ConfigResource

from feedrank_core.contracts.topics import Topic
from feedrank_core.runtime.bus import TopicMismatchError
from feedrank_core.runtime.bus_kafka_connection import MAX_RECORD_BYTES

COMPACT_WITHIN = timedelta(days=1)
SEGMENT = timedelta(days=1)
"""A record goes with its segment: this much later than its retention at most."""
_EXACTLY = {"message.timestamp.type", "cleanup.policy"}
_AT_LEAST = {"retention.ms", "delete.retention.ms", "max.message.bytes"}
"""A negative one has no limit."""


def topic_settings(topic: Topic) -> dict[str, str]:
    """The topic's settings on the broker."""
    retention_ms = str(int(topic.retention.total_seconds() * 1000))
    settings = {
        # Our `published_at` is the bus's clock, whatever the producers' clocks say.
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_RECORD_BYTES),
    }
    if not topic.compacted:
        return settings | {
            "cleanup.policy": "delete",
            "retention.ms": retention_ms,
            "segment.ms": str(int(SEGMENT.total_seconds() * 1000)),
        }
    return settings | {
        "cleanup.policy": "compact",
        # A reader that was away for less than this still sees what was withdrawn.
        "delete.retention.ms": retention_ms,
        "max.compaction.lag.ms": str(int(COMPACT_WITHIN.total_seconds() * 1000)),
    }


def settings_of(admin: kafka.KafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The settings of these topics, by name."""
    resources = [ConfigResource("TOPIC", name) for name in names]
    if not resources:
        return {}
    found = admin.describe_configs(resources, config_filter="all")["topic"]
    return {name: {k: v["value"] for k, v in of.items()} for name, of in found.items()}


def require_settings(topic: Topic, found: Mapping[str, str]) -> None:
    """A topic that somebody made keeps its records as the contracts say, or for longer.

    Raises: TopicMismatchError.
    """
    for setting, wanted in topic_settings(topic).items():
        has = found[setting]
        too_little = setting in _AT_LEAST and 0 <= int(has) < int(wanted)
        if too_little or (setting in _EXACTLY and has != wanted):
            raise TopicMismatchError(
                f"topic {topic.name} has {setting}={has} and the contracts say {wanted}:"
                " records would be lost; set it on the broker, or use another prefix"
            )
