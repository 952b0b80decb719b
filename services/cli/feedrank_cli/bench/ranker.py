"""The ranker beside what is simpler than it, and beside the truth where a world knows it."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from feedrank_core.contracts.slates import HEADS, Head
from feedrank_core.evaluation.calibration import EVENTS_PER_BIN
from feedrank_core.evaluation.ranking_metrics import pooled_auc
from feedrank_core.models.ranker import Ranker
from feedrank_core.runtime.home import Home
from feedrank_simulator.history import TargetError
from feedrank_trainer.onnx_export import on_one_thread
from feedrank_trainer.ranking.calibration import Calibration
from feedrank_trainer.ranking.export import (
    CANDIDATE_INPUTS,
    SCORER_FILE,
    export_ranker,
    request,
)
from feedrank_trainer.ranking.measures import HeadMeasures, measure_head
from feedrank_trainer.ranking.training import RankerConfig, fit_ranker, logits

from feedrank_cli.bench.latency import tell_latency
from feedrank_cli.bench.report import BenchCannotRun, Report, require_room
from feedrank_cli.quality.reading import DataError
from feedrank_cli.ranker import movielens, simulated
from feedrank_cli.ranker.contenders import lightgbm, logistic_regression, popularity
from feedrank_cli.ranker.task import RankingTask

NAME = "ranker"
HELP = "The multi-task ranker on simulator slates (or `movielens PATH`): AUC, calibration, latency."
FULL = {"users": 20_000, "items": 40_000, "impressions": 5_000_000}
QUICK = {"users": 2_000, "items": 4_000, "impressions": 300_000}
MODELS = {"dcn": RankerConfig(attention=False), "history": RankerConfig()}
SHIPS = "dcn"
"""The one that bounds are held to. A run that misses its lead over the other says to ship that."""
CANDIDATES = 500
REQUESTS = 1000
CHECKED_SLATES = 8
MIN_WAY, MAX_ERROR, MAX_P99_MS = 0.90, 0.10, 5.0
BYTES_PER_IMPRESSION = 200
DATA_FORMAT = "movielens"


def run(
    home: Home, *, quick: bool, seed: int, data_format: str | None = None, path: Path | None = None
) -> Report:
    """Make or read a task, fit every contender to its first part, and measure on its last."""
    if (data_format is None) != (path is None) or data_format not in (None, DATA_FORMAT):
        raise BenchCannotRun(f"give nothing for the simulator, or `{DATA_FORMAT} PATH`")
    torch.set_num_threads(1)
    report = Report(NAME if data_format is None else f"{NAME} {data_format}", seed)
    task = _task(home, path, quick=quick, seed=seed)
    for part in ("train", "tuning", "test"):
        report.figure(f"{part}_impressions", len(getattr(task, part).impressions))
    is_clicked_R = task.test.impressions.label(Head.CLICK) > 0
    baselines = {
        "popularity": popularity(task),
        "logistic_regression": logistic_regression(task, seed=seed),
        "lightgbm": lightgbm(task, seed=seed),
    }
    for name, score_R in baselines.items():
        report.floor(f"auc_{name}", pooled_auc(score_R, is_clicked_R))
    _tell_truth(report, task)
    for name, config in MODELS.items():
        began = time.process_time()
        model = fit_ranker(task.train, task.items, task.schema, config=config, seed=seed)
        report.figure(f"{name}_training_cpu_s", time.process_time() - began)
        _tell_model(report, task, model, name)
    _tell_lead(report, is_bound=task.test_truth_RH is not None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.figure("peak_mb", peak)
    return report


def _task(home: Home, path: Path | None, *, quick: bool, seed: int) -> RankingTask:
    if path is not None:
        try:
            return movielens.prepare(path)
        except DataError as error:
            raise BenchCannotRun(str(error)) from error
    size = QUICK if quick else FULL
    require_room(home.root, BYTES_PER_IMPRESSION * size["impressions"])
    with tempfile.TemporaryDirectory(prefix="bench-ranker-", dir=home.root) as folder:
        try:
            world = simulated.simulate(Path(folder), **size, seed=seed)
        except TargetError as error:
            raise BenchCannotRun(str(error)) from error
        return simulated.prepare(Path(folder), world)


def _tell_truth(report: Report, task: RankingTask) -> None:
    """Add what the true probabilities reach, calibrated and as blind to positions as ours."""
    if task.tuning_truth_RH is None or task.test_truth_RH is None:
        return
    for head, found in _measures(task, task.tuning_truth_RH, task.test_truth_RH).items():
        report.floor(f"oracle_{head}_calibration_error", found.error)
        report.floor(f"oracle_{head}_loss", found.loss)
        if head is Head.CLICK:
            report.floor("auc_oracle", found.auc)


def _tell_model(report: Report, task: RankingTask, model: Ranker, name: str) -> None:
    """Add a model's AUC, how far that is on the way to the oracle's, and what its heads are."""
    foretold = (logits(model, part, task.items) for part in (task.tuning, task.test))
    is_bound = name == SHIPS and task.test_truth_RH is not None
    for head, found in _measures(task, *foretold).items():
        report.figure(f"{name}_{head}_auc", found.auc)
        report.figure(f"{name}_{head}_calibration_error", found.error)
        report.figure(f"{name}_{head}_loss", found.loss)
        # Of a rarer head chance alone decides whether it meets the bound.
        if is_bound and (task.test.impressions.label(head) > 0).sum() >= EVENTS_PER_BIN:
            report.bound(f"{name}_{head}_calibration_error", "<=", MAX_ERROR)
            report.bound(f"{name}_{head}_loss", "<", 1.0)
    if task.test_truth_RH is not None:
        low, best = (report.floors[f"auc_{other}"] for other in ("popularity", "oracle"))
        reached = report.figures[f"{name}_{Head.CLICK}_auc"]
        report.figure(f"{name}_way_to_oracle", (reached - low) / (best - low))
    if is_bound:
        report.bound(f"{name}_way_to_oracle", ">=", MIN_WAY)
    if name == SHIPS:
        _tell_speed(report, task, model)


def _measures(
    task: RankingTask, tuning_RH: np.ndarray, test_RH: np.ndarray
) -> dict[Head, HeadMeasures]:
    """What calibrated logits reach on the test, by head; NaN are logits that nobody knows."""
    label_RH = np.where(np.isnan(tuning_RH), np.nan, task.tuning.impressions.label_RH)
    foretold_RH = Calibration.fit(tuning_RH, label_RH).foretold(test_RH)
    found = {}
    for head in task.heads:
        foretold_R = foretold_RH[:, HEADS.index(head)]
        if np.isnan(foretold_R).any():
            continue
        measured = measure_head(head, foretold_R, task.test.impressions.label(head))
        if measured is not None:
            found[head] = measured
    return found


def _tell_lead(report: Report, *, is_bound: bool) -> None:
    """Add how far the model that ships is before LightGBM, and before the other models."""
    auc_of = {name: report.figures[f"{name}_{Head.CLICK}_auc"] for name in MODELS}
    others = {"lightgbm": report.floors["auc_lightgbm"], **auc_of}
    ours = others.pop(SHIPS)
    for name, auc in others.items():
        report.figure(f"{SHIPS}_lead_over_{name}", ours - auc)
        if is_bound:
            report.bound(f"{SHIPS}_lead_over_{name}", ">", 0.0)


def _tell_speed(report: Report, task: RankingTask, model: Ranker) -> None:
    """Add the time of a request of CANDIDATES candidates on one thread, and the file's parity."""
    few = task.test.slates(np.arange(task.test.num_slates) < CHECKED_SLATES)
    with tempfile.TemporaryDirectory() as folder:
        export_ranker(model, Path(folder), few, task.items)
        session = on_one_thread(Path(folder) / SCORER_FILE)
    one = {name: value.numpy() for name, value in request(model, few, task.items, 0).items()}
    one |= {name: np.repeat(one[name][:, :1], CANDIDATES, axis=1) for name in CANDIDATE_INPUTS}
    tell_latency(report, "score_500", lambda _: session.run(None, one), requests=REQUESTS)
    report.bound("score_500_p99_ms", "<=", MAX_P99_MS)
