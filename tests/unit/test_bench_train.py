"""`feedrank bench train` at a size that fits in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feedrank_cli.bench import train
from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.bench.train_data import NUM_TOPICS, actions, catalogue
from feedrank_core.features.encoding import ITEM_INPUTS, FeatureSchema, encode_items
from feedrank_core.runtime.home import Home


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(train, "QUICK_ITEMS", 2_000)
    config = replace(train.PRESETS[train.PRESET], batch_size=64, num_uniform=64)
    monkeypatch.setitem(train.PRESETS, train.PRESET, config)


@pytest.mark.long
def test_it_learns_draws_the_loss_and_leaves_nothing_behind(tmp_path: Path, small) -> None:
    home, picture = tmp_path / "home", tmp_path / "loss.svg"
    report = train.run(Home(home), quick=True, seed=1, users=300, picture=picture)
    assert report.figures["samples"] == report.figures["examples"] > 1_000
    assert report.figures["last_loss"] < report.figures["first_loss"]
    assert report.figures["samples_per_s"] > 0
    assert report.floors["batches_alone_samples_per_s"] > 0
    assert report.figures["encode_one_p50_ms"] > 0
    held = {"samples_per_s", "loss_fell_by", "encode_one_p99_ms"}
    assert {name for name, _, _ in report.bounds} == held
    assert "samples learned from" in picture.read_text()
    assert not list(home.iterdir())


def test_a_picture_that_cannot_be_drawn_is_told_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(BenchCannotRun, match=r"must end in \.svg"):
        train.run(Home(tmp_path), quick=True, seed=1, picture=tmp_path / "loss.png")


def test_its_catalogue_is_what_the_encoding_would_give() -> None:
    schema, items = catalogue(500, np.random.default_rng(1))
    encoded = encode_items(FeatureSchema(), {"item_id": list("ab")})
    assert items.keys() == encoded.keys() == set(ITEM_INPUTS)
    assert {n: v.dtype for n, v in items.items()} == {n: v.dtype for n, v in encoded.items()}
    assert {len(values) for values in items.values()} == {500}
    assert items["id_buckets"].max() < schema.num_id_buckets
    assert items["text"].max() < schema.num_text_buckets


def test_its_readers_have_a_topic_and_popular_items_are_met_most() -> None:
    log = actions(np.arange(500), 10_000, np.random.default_rng(1))
    is_own = log.item % NUM_TOPICS == log.user % NUM_TOPICS
    assert 0.75 < is_own.mean() < 0.9
    assert (log.item < 100).mean() > 0.3
    assert (np.diff(log.user) >= 0).all()
    assert (np.diff(log.at_s)[np.diff(log.user) == 0] >= 0).all()
