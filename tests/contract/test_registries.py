import re
from pathlib import Path

import pytest
from feedrank_core.contracts.metrics import METRICS
from feedrank_core.contracts.redis_keys import REDIS_KEYS
from feedrank_core.contracts.topics import DLQ_SUFFIX, TOPICS, with_dead_letters

SERVICES = Path(__file__).parents[2] / "services"
KNOWN = {
    "ingestion",
    "feature_store",
    "trainer",
    "batch_ranker",
    "model_server",
    "gateway",
    "drift_monitor",
    "simulator",
    "cli",
}
METRICS_MODULE = "core/feedrank_core/runtime/metrics.py"


def sources(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(SERVICES)): p.read_text()
        for p in folder.rglob("*.py")
        if "build" not in p.parts
    }


@pytest.mark.parametrize("topic", with_dead_letters().values(), ids=lambda t: t.name)
def test_a_topic_has_writers_and_readers_that_are_services(topic) -> None:
    assert topic.writers and topic.writers <= KNOWN
    assert topic.readers and topic.readers <= KNOWN
    assert topic.partitions >= 1


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda t: t.name)
def test_a_topic_is_keyed_by_fields_of_its_model_and_has_a_twin(topic) -> None:
    assert set(topic.key.split("+")) <= topic.model.model_fields.keys()
    assert with_dead_letters()[topic.name + DLQ_SUFFIX].compacted is False


@pytest.mark.parametrize("key", REDIS_KEYS.values(), ids=lambda k: k.name)
def test_a_redis_key_has_one_writer_readers_a_size_and_a_life(key) -> None:
    assert key.writer in KNOWN
    assert key.readers and key.readers <= KNOWN
    assert key.max_bytes > 0
    assert key.ttl_s is None or key.ttl_s > 0
    assert "{" not in key.key(**dict.fromkeys(re.findall(r"{(\w+)}", key.template), "x"))


def test_no_two_redis_keys_share_a_prefix() -> None:
    prefixes = [k.template.partition("{")[0] for k in REDIS_KEYS.values()]
    for prefix in prefixes:
        assert [p for p in prefixes if p.startswith(prefix)] == [prefix]


def test_only_the_metrics_module_knows_prometheus() -> None:
    pattern = re.compile(r"^\s*(import|from) prometheus_client", re.MULTILINE)
    assert [p for p, text in sources(SERVICES).items() if pattern.search(text)] == [METRICS_MODULE]


@pytest.mark.parametrize("spec", METRICS, ids=lambda s: s.full_name)
def test_a_registered_metric_is_emitted_by_its_service(spec) -> None:
    assert spec.service in KNOWN
    call = re.compile(rf"\.{spec.kind}\(\s*\"{spec.name}\"\s*\)")
    texts = sources(SERVICES / spec.service).values()
    assert any(call.search(text) for text in texts), "registered and never emitted"


def test_no_service_asks_for_a_metric_outside_the_registry() -> None:
    call = re.compile(r"metrics\.(?:counter|gauge|histogram)\(\s*\"(\w+)\"")
    registered = {(spec.service, spec.name) for spec in METRICS}
    for path, text in sources(SERVICES).items():
        service = path.partition("/")[0]
        for name in call.findall(text):
            assert (service, name) in registered, path
