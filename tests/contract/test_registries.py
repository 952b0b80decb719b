import ast
import re
from pathlib import Path
from types import ModuleType

import pytest
from feedrank_core.contracts import redis_keys, topics
from feedrank_core.contracts.dead_letters import DeadLetter
from feedrank_core.contracts.metrics import METRICS
from feedrank_core.contracts.redis_keys import REDIS_KEYS, RedisKey
from feedrank_core.contracts.topics import DLQ_SUFFIX, TOPICS, Topic, with_dead_letters
from feedrank_ingestion.lake_sink import SINK_TOPICS

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
SERVING = sorted(KNOWN - {"cli"})
"""The command line's measurements fill topics and keys themselves, and are nobody's reader."""
RUNTIME = "feedrank_core.runtime."
RUNTIME_FOLDER = SERVICES / "core" / "feedrank_core" / "runtime"
METRICS_MODULE = "core/feedrank_core/runtime/metrics.py"


def sources(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(SERVICES)): p.read_text()
        for p in folder.rglob("*.py")
        if "build" not in p.parts
    }


def imported(service: str) -> set[tuple[str, str]]:
    """What a package takes from the registries, itself or by a module of the shared runtime."""
    texts = [
        text
        for path, text in sources(SERVICES / service).items()
        if not Path(path).name.startswith("memory_")  # a twin says nothing about what runs
    ]
    direct = {pair for text in texts for pair in _imports(text)}
    shared = {m.removeprefix(RUNTIME) for m, _ in direct if m.startswith(RUNTIME)}
    by_runtime = [_imports((RUNTIME_FOLDER / f"{m}.py").read_text()) for m in shared]
    return direct.union(*by_runtime)


def _imports(text: str) -> set[tuple[str, str]]:
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "", alias.name) for node in found for alias in node.names}


IMPORTED = {service: imported(service) for service in SERVING if (SERVICES / service).exists()}


def users_of(constant: str, module: ModuleType) -> set[str]:
    return {s for s, names in IMPORTED.items() if (module.__name__, constant) in names}


@pytest.mark.parametrize("topic", with_dead_letters().values(), ids=lambda t: t.name)
def test_a_topic_has_writers_and_readers_that_are_services(topic) -> None:
    assert topic.writers and topic.writers <= KNOWN
    assert topic.readers <= KNOWN
    assert topic.readers or topic.model is DeadLetter
    assert topic.partitions >= 1
    assert not topic.in_lake or "ingestion" in topic.readers or topic.model is DeadLetter


@pytest.mark.parametrize(
    "constant", [name for name, value in vars(topics).items() if isinstance(value, Topic)]
)
def test_whoever_is_declared_at_a_topic_uses_it_unless_it_is_planned(constant: str) -> None:
    topic: Topic = getattr(topics, constant)
    by_registry = {"ingestion"} if topic in SINK_TOPICS else set()
    declared = topic.writers | topic.readers
    assert topic.planned <= declared
    assert users_of(constant, topics) | by_registry == declared - topic.planned


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda t: t.name)
def test_whoever_is_declared_at_dead_letters_writes_some(topic: Topic) -> None:
    twin = with_dead_letters()[topic.dlq]
    for service in twin.writers - twin.planned:
        assert any(".dead_letter(" in text for text in sources(SERVICES / service).values())


@pytest.mark.parametrize(
    "constant", [name for name, value in vars(redis_keys).items() if isinstance(value, RedisKey)]
)
def test_whoever_is_declared_at_a_redis_key_uses_it_unless_it_is_planned(constant: str) -> None:
    key: RedisKey = getattr(redis_keys, constant)
    declared = key.readers | {key.writer}
    assert key.planned <= declared
    assert users_of(constant, redis_keys) == declared - key.planned


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
