"""The bundle store: what is sealed is whole, and only an indexed bundle serves."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import pytest
from feedrank_core.contracts.bundle import CURRENT, MANIFEST, Manifest, Part, PopularLists, Stage
from feedrank_core.runtime.bundle_store import (
    BundleError,
    BundleStore,
    sha256_of,
)

BUNDLE_ID = "20260115T000000-0123abcd"
NOW = datetime(2026, 1, 15, tzinfo=UTC)


def manifest(stage: Stage = Stage.INDEXED, bundle_id: str = BUNDLE_ID) -> Manifest:
    return Manifest(
        bundle_id=bundle_id,
        stage=stage,
        created_at=NOW,
        as_of=NOW,
        num_items=3,
        seed=1,
        files={"made-up": "0" * 64},
    )


def sealed(store: BundleStore, stage: Stage = Stage.INDEXED, bundle_id: str = BUNDLE_ID) -> Path:
    path = store.create(bundle_id)
    (path / "items").mkdir(exist_ok=True)
    np.save(path / Part.ITEM_KEYS, np.array([1, 2, 3]))
    popular = PopularLists(everyone=(2, 0, 1))
    (path / Part.POPULAR).write_text(popular.model_dump_json())
    store.seal(manifest(stage, bundle_id))
    return path


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "bundles")


def test_a_sealed_bundle_opens_with_its_parts(store: BundleStore) -> None:
    sealed(store)
    bundle = store.open(BUNDLE_ID)
    assert bundle.bundle_id == BUNDLE_ID
    assert bundle.array(Part.ITEM_KEYS).tolist() == [1, 2, 3]
    assert bundle.popular.everyone == (2, 0, 1)
    assert bundle.json(Part.POPULAR) == {"everyone": [2, 0, 1], "segments": {}}


def test_arrays_of_an_opened_bundle_cannot_be_written(store: BundleStore) -> None:
    sealed(store)
    with pytest.raises(ValueError, match="read-only"):
        store.open(BUNDLE_ID).array(Part.ITEM_KEYS)[0] = 9


def test_sealing_hashes_every_file_whatever_was_passed(store: BundleStore) -> None:
    path = sealed(store)
    files = store.open(BUNDLE_ID).manifest.files
    assert files == {part.value: sha256_of(path / part) for part in (Part.ITEM_KEYS, Part.POPULAR)}


def test_sealing_again_takes_added_files_in(store: BundleStore) -> None:
    path = sealed(store, Stage.TRAINED)
    (path / "index").mkdir()
    (path / Part.INDEX).write_text("{}")
    store.seal(manifest(Stage.INDEXED))
    bundle = store.open(BUNDLE_ID)
    assert bundle.manifest.stage is Stage.INDEXED
    assert Part.INDEX in bundle.manifest.files


def test_a_corrupted_file_is_named(store: BundleStore) -> None:
    path = sealed(store)
    damaged = bytearray((path / Part.ITEM_KEYS).read_bytes())
    damaged[-1] ^= 1
    (path / Part.ITEM_KEYS).write_bytes(damaged)
    with pytest.raises(BundleError, match=r"items/item_key\.npy does not match its sha256"):
        store.open(BUNDLE_ID)


def test_a_missing_file_is_named(store: BundleStore) -> None:
    path = sealed(store)
    (path / Part.POPULAR).unlink()
    with pytest.raises(BundleError, match=r"popular\.json is missing"):
        store.open(BUNDLE_ID)


def test_opening_without_verifying_reads_the_manifest_alone(store: BundleStore) -> None:
    path = sealed(store)
    (path / Part.POPULAR).unlink()
    assert store.open(BUNDLE_ID, verify=False).bundle_id == BUNDLE_ID


def test_an_unknown_bundle_is_told_with_a_remedy(store: BundleStore) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read.*feedrank daily"):
        store.open(BUNDLE_ID)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_version_is_refused_and_named(store: BundleStore, version: object) -> None:
    path = sealed(store)
    content = orjson.loads((path / MANIFEST).read_bytes())
    (path / MANIFEST).write_bytes(orjson.dumps(content | {"schema_version": version}))
    with pytest.raises(BundleError, match=f"schema_version is {version}, this release reads 1"):
        store.open(BUNDLE_ID)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'{"schema_version": 1}', b"\xff"])
def test_a_manifest_that_is_no_manifest_is_refused(store: BundleStore, content: bytes) -> None:
    path = sealed(store)
    (path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json is not valid"):
        store.open(BUNDLE_ID)


def test_before_the_first_flip_no_bundle_serves(store: BundleStore) -> None:
    sealed(store)
    assert store.current_id() is None


def test_a_flip_makes_an_indexed_bundle_the_one_that_serves(store: BundleStore) -> None:
    later = "20260116T000000-0123abcd"
    sealed(store)
    sealed(store, bundle_id=later)
    store.flip(BUNDLE_ID)
    assert store.current_id() == BUNDLE_ID
    store.flip(later)
    assert store.current_id() == later
    assert store.ids() == [BUNDLE_ID, later]


def test_a_flip_refuses_what_is_not_indexed_and_keeps_the_old(store: BundleStore) -> None:
    later = "20260116T000000-0123abcd"
    sealed(store)
    store.flip(BUNDLE_ID)
    sealed(store, Stage.TRAINED, later)
    with pytest.raises(BundleError, match="trained, not indexed"):
        store.flip(later)
    assert store.current_id() == BUNDLE_ID


def test_a_flip_refuses_a_corrupted_bundle(store: BundleStore) -> None:
    path = sealed(store)
    (path / Part.POPULAR).write_text("{}")
    with pytest.raises(BundleError, match="sha256"):
        store.flip(BUNDLE_ID)
    assert not (store.root / CURRENT).exists()


def test_a_folder_that_was_never_sealed_is_no_bundle(store: BundleStore) -> None:
    store.create(BUNDLE_ID)
    assert store.ids() == []


def test_what_is_older_than_the_kept_bundles_goes_but_what_serves(store: BundleStore) -> None:
    ids = [f"2026011{day}T000000-0123abcd" for day in range(1, 8)]
    for bundle_id in ids[1:]:
        sealed(store, bundle_id=bundle_id)
    store.create(ids[0])
    store.create("20260118T000000-0123abcd")
    (store.root / "0-of-mine").mkdir()
    shutil.copytree(store.root / ids[6], store.root / f"{ids[6]}.copy")
    held = store.open(ids[3]).array(Part.ITEM_KEYS)
    assert store.keep(2, {ids[1], ids[2]}) == [ids[0], ids[3], ids[4]]
    assert store.ids() == [ids[1], ids[2], ids[5], ids[6], f"{ids[6]}.copy"]
    assert (store.root / "0-of-mine").is_dir()
    assert (store.root / "20260118T000000-0123abcd").is_dir()
    assert held.tolist() == [1, 2, 3]
    assert store.keep(2, {ids[1], ids[2]}) == []


def test_a_removal_that_was_cut_short_is_completed(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = "20260116T000000-0123abcd"
    path = sealed(store)
    sealed(store, bundle_id=later)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.keep(1, set())
    assert store.ids() == [later]
    assert store.keep(1, set()) == [BUNDLE_ID]
    assert not path.exists()
