"""MovieLens-100k: the two-tower against popularity and item-kNN, on each reader's last tenth."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from feedrank_core.evaluation.bootstrap import paired_difference
from feedrank_core.runtime.home import Home
from feedrank_trainer.comparison import baselines, measure

from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.quality.movielens import BY_READER, prepare
from feedrank_cli.quality.reading import DataError
from feedrank_cli.quality.task import mean_values, run_seed

NAME = "movielens"
HELP = "NDCG@10 and Recall@20 on ml-100k beside popularity; data from FEEDRANK_MOVIELENS."
DATA_VARIABLE = "FEEDRANK_MOVIELENS"
FULL_SEEDS = 3


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Train and compare; every mean is over readers, and over seeds in the full run."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder or not (Path(folder) / "ml-100k.inter").exists():
        raise BenchCannotRun(f"set {DATA_VARIABLE} to the folder that holds ml-100k.inter")
    try:
        task = prepare(Path(folder), [BY_READER])[BY_READER]
    except DataError as error:
        raise BenchCannotRun(str(error)) from error
    seeds = range(seed, seed + (1 if quick else FULL_SEEDS))
    outcomes = [run_seed(task, seed=number, report=lambda epoch: None) for number in seeds]
    holdout = task.final.holdout
    ours = mean_values(outcome.measured for outcome in outcomes)
    report = Report(NAME, seed)
    report.figure("users", len(holdout.readers["user"]))
    report.figure("epochs", float(np.mean([outcome.epochs for outcome in outcomes])))
    for baseline, contender in baselines(holdout).items():
        theirs = measure(holdout, contender, with_auc=False).values
        for metric, values in ours.items():
            report.figure(f"two_tower_{metric}", values.mean())
            report.floor(f"{baseline}_{metric}", theirs[metric].mean())
            lead = paired_difference(values, theirs[metric], seed=seed)
            report.figure(f"{metric}_over_{baseline}_low", lead.low)
            report.figure(f"{metric}_over_{baseline}_high", lead.high)
            if baseline == "popularity":
                report.bound(f"{metric}_over_{baseline}_low", ">", 0.0)
    return report
