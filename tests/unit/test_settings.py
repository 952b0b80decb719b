import pytest
import redis
from feedrank_batch_ranker.settings import Settings as BatchRanker
from feedrank_cli.roster import roster
from feedrank_cli.settings import Settings as CommandLine
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.bus_kafka_connection import Security
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.bus_redis_streams import translated
from feedrank_core.runtime.settings import InstallationSettings
from feedrank_feature_store.settings import Settings as FeatureStore
from feedrank_gateway.settings import Settings as Gateway
from feedrank_ingestion.settings import Settings as Ingestion
from feedrank_simulator.settings import Settings as Simulator
from feedrank_trainer.settings import Settings as Trainer

EVERYONE = [BatchRanker, CommandLine, FeatureStore, Gateway, Ingestion, Simulator, Trainer]


@pytest.mark.parametrize("settings", EVERYONE)
def test_one_variable_serves_every_process(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("FEEDRANK_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("FEEDRANK_BUS_URL", "kafka://10.0.0.1:9092/")
    monkeypatch.setenv("FEEDRANK_CACHE_URL", "redis://10.0.0.2:6379/1")
    monkeypatch.setenv("FEEDRANK_HOST", "127.0.0.2")
    own = settings()
    assert own.place.root == tmp_path / "elsewhere"
    assert own.bus_url == "kafka://10.0.0.1:9092/"
    assert own.cache_url == "redis://10.0.0.2:6379/1"
    assert own.host == "127.0.0.2"


def test_without_the_variable_the_home_is_a_folder_of_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("FEEDRANK_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert InstallationSettings().place.root == tmp_path / ".feedrank"


def test_a_relative_home_stays_where_it_was_when_the_process_moves(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEEDRANK_HOME", "here")
    settings = InstallationSettings()
    monkeypatch.chdir("/")
    assert settings.place.root == tmp_path / "here"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "fe80::1", "a.example", "0"])
@pytest.mark.parametrize("settings", EVERYONE)
def test_without_keys_no_address_is_served_that_others_reach(settings, host, monkeypatch):
    monkeypatch.setenv("FEEDRANK_HOST", host)
    with pytest.raises(SystemExit, match=r"^error: FEEDRANK_HOST: .*FEEDRANK_ALLOW_ANONYMOUS=true"):
        settings.at_start()
    monkeypatch.setenv("FEEDRANK_ALLOW_ANONYMOUS", "true")
    assert settings.at_start().host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_an_address_of_this_machine_needs_no_leave(host, monkeypatch):
    monkeypatch.setenv("FEEDRANK_HOST", host)
    assert InstallationSettings.at_start().host == host


@pytest.mark.parametrize(
    ("settings", "variable", "value"),
    [
        (Gateway, "FEEDRANK_GATEWAY_PORT", "65536"),
        (Gateway, "FEEDRANK_BUS_URL", ""),
        (Gateway, "FEEDRANK_CACHE_URL", "kafka://127.0.0.1:9092"),
        (Ingestion, "FEEDRANK_INGESTION_PORT", "http"),
        (FeatureStore, "FEEDRANK_FEATURE_STORE_MAX_RECORDS", "0"),
        (BatchRanker, "FEEDRANK_BATCH_RANKER_ENGINE", "hnsw"),
        (Trainer, "FEEDRANK_TRAINER_EPOCHS", "-1"),
        (Simulator, "FEEDRANK_GATEWAY_PORT", "0"),
        (Security, "FEEDRANK_KAFKA_SECURITY_PROTOCOL", "TLS"),
    ],
)
def test_a_bad_setting_ends_the_start_with_its_variable_and_value(
    settings, variable, value, monkeypatch
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=f"^error: {variable}: .*got {value!r}"):
        settings.at_start()


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("FEEDRANK_BUS_URL", "redis://us:h1dden@h:0/0", "redis://***@h:0/0"),
        ("FEEDRANK_BUS_URL", "redis://:h1/dden@h:1/0", "must have /"),
        ("FEEDRANK_BUS_URL", "http://us:h1dden@h", "http://***@h"),
        ("FEEDRANK_BUS_URL", "kafka://us:h1dden@h:9092/", "FEEDRANK_KAFKA_SASL_USERNAME"),
        ("FEEDRANK_CACHE_URL", "redis://h:x/0?password=h1dden&db=1", "password=***&db=1"),
        ("FEEDRANK_GATEWAY_CURSOR_SECRET", "h1", "FEEDRANK_GATEWAY_CURSOR_SECRET"),
    ],
)
def test_the_complaint_about_a_bad_setting_shows_no_password(monkeypatch, variable, value, shown):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        Gateway.at_start()
    said = str(ended.value)
    assert variable in said and shown in said
    assert "h1" not in said and "dden" not in said


@pytest.mark.parametrize("url", ["ftp://us:hidden@h", "ftp://h?password=hidden"])
def test_an_unknown_bus_is_named_without_its_password(url):
    with pytest.raises(ValueError, match=r"ftp://.*\*\*\*") as refused:
        open_bus(url)
    assert "hidden" not in str(refused.value)


def test_a_bus_that_is_away_is_named_without_its_password():
    url = "redis://us:hidden@host:7801/0?username=hidden"
    with pytest.raises(BusUnavailableError, match="host:7801") as away, translated(url):
        raise redis.ConnectionError("refused")
    assert "hidden" not in str(away.value)


def test_up_gives_the_cache_the_memory_that_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("FEEDRANK_CACHE_BYTES", str(3 << 30))
    (cache,) = (one for one in roster(CommandLine(home=tmp_path)) if one.name == "cache")
    assert cache.command[cache.command.index("--maxmemory") + 1] == str(3 << 30)


def test_what_the_command_line_hands_on_is_what_the_services_read(monkeypatch, tmp_path):
    up = CommandLine(home=tmp_path, host="127.0.0.2", gateway_port=9080, ingestion_port=9081)
    for name, value in up.environment().items():
        monkeypatch.setenv(name, value)
    assert CommandLine() == up
    assert (Gateway().port, Gateway().host) == (9080, "127.0.0.2")
    assert Simulator().intake_url == "http://127.0.0.2:9081"
