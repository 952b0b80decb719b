"""Training outlives kill -9, and several processes train as one does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import onnxruntime
import pytest
from feedrank_core.contracts.bundle import Part
from feedrank_core.runtime.bundle_store import Bundle, BundleStore
from feedrank_trainer.pairs import write_pairs
from processes import free_port
from trainer_world import AS_OF, write_features

pytestmark = pytest.mark.long
TRAIN = ("feedrank_trainer", "train")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")
EPOCHS = 5
COMPARED = 3
"""Epochs that are run whatever the later slice says."""
LOSS = re.compile(r"epoch (\d+) .*loss ([\d.]+)")
NOISE = 0.05
"""Share of a loss: two processes see other batches and draw other negatives than one does."""


@dataclass(frozen=True)
class World:
    root: Path

    @property
    def examples(self) -> Path:
        return self.root / "examples"

    def start(self, name: str, *, processes: int = 1, **more: str) -> subprocess.Popen[str]:
        """The trainer on the examples, in a folder of that name."""
        run = self.root / name
        if not run.exists():
            shutil.copytree(self.examples, run)
        # Without the dashes torchrun takes --run for an option of its own.
        launcher = (*TORCHRUN, str(processes), "-m", "--") if processes > 1 else ()
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                *launcher,
                *TRAIN,
                "--as-of",
                AS_OF.isoformat(),
                "--run",
                str(run),
            ],
            env=os.environ
            | {
                "FEEDRANK_HOME": str(self.root),
                "FEEDRANK_TRAINER_PORT": str(free_port()),
                "FEEDRANK_TRAINER_THREADS": "1",
                "FEEDRANK_TRAINER_EPOCHS": str(EPOCHS),
                "FEEDRANK_TRAINER_BATCH_SIZE": "64",
                **more,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bundle(self, answer: str) -> Bundle:
        return BundleStore(self.root / "bundles").open(json.loads(answer)["bundle_id"])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    root = tmp_path_factory.mktemp("killed")
    write_features(root / "features")
    (root / "examples").mkdir()
    with pytest.MonkeyPatch.context() as patch, duckdb.connect() as connection:
        patch.setattr("feedrank_trainer.pairs.ROWS_AT_A_TIME", 100)
        write_pairs(root / "features", root / "examples", as_of=AS_OF, connection=connection)
    return World(root)


@pytest.fixture(scope="module")
def whole(world) -> tuple[Bundle, str]:
    """A training that nobody disturbs, and what it told."""
    answer, told = world.start("whole").communicate()
    return world.bundle(answer), told


def vectors(bundle: Bundle) -> np.ndarray:
    session = onnxruntime.InferenceSession(bundle.part(Part.ITEM_ENCODER))
    return np.asarray(session.run(["vector"], dict(np.load(bundle.part(Part.ITEM_INPUTS))))[0])


def losses(told: str) -> list[float]:
    return [float(loss) for _, loss in LOSS.findall(told)]


def test_a_killed_training_goes_on_to_the_vectors_of_one_that_ran_through(world, whole):
    with world.start("killed") as child:
        assert child.stderr is not None
        assert any(line.startswith("epoch 1 ") for line in child.stderr)
        child.kill()
    answer, told = world.start("killed").communicate()
    assert told.startswith("resumed after epoch ")
    np.testing.assert_array_equal(vectors(world.bundle(answer)), vectors(whole[0]))
    left = [path.name for path in (world.root / "killed").iterdir()]
    assert [name for name in left if "checkpoint" in name] == []


def test_two_processes_reach_the_loss_of_one(world, whole):
    child = world.start("two", processes=2)
    answer, told = child.communicate()
    assert child.returncode == 0, told
    assert len(losses(told)) >= COMPARED
    np.testing.assert_allclose(losses(told)[:COMPARED], losses(whole[1])[:COMPARED], rtol=NOISE)
    assert vectors(world.bundle(answer)).shape == vectors(whole[0]).shape


def test_more_processes_than_shards_are_refused(world):
    shutil.copytree(world.examples, world.root / "few")
    for shard in sorted((world.root / "few" / "pairs").glob("*.parquet"))[1:]:
        shard.unlink()
    child = world.start("few", processes=2)
    _, told = child.communicate()
    assert child.returncode
    assert "2 processes cannot share 1 shards" in told
