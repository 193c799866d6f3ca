"""RecTools' SASRec and HSTU with full cross-entropy on leave-last-out rows: built, timed by epoch, asked for lists."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from ml1m import Rows
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import HSTUModel, SASRecModel

MODEL = {
    "data": "../shared/data",
    "people": 0,  # 0 = all; else so many with the lowest ids: to see that it works
    "model": "sasrec",  # or hstu
    "width": 64,
    "length": 200,  # of histories; RecTools trains on the last length + 1 events of each person alone
    "blocks": 2,
    "heads": 2,
    "batch": 128,  # persons a step
    "dropout": 0.2,
    "learning_rate": 0.001,
    "precision": "32-true",  # or bf16-mixed
    "threads": 0,  # 0 = as torch likes
    "seed": 1,
}


class EpochClock(Callback):
    """Seconds of each epoch of fit, of the clock and of the processor: putting batches together, forward, backward and
    optimizer; no preparation, no validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor_s: list[float] = []
        self._begun = 0.0, 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self._begun[0])
        self.processor_s.append(time.process_time() - self._begun[1])


def build(settings: dict[str, Any]) -> SASRecModel | HSTUModel:
    """Return the unfitted model; seeds everything."""
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    seed_everything(settings["seed"], verbose=False)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=1,
            precision=settings["precision"],
            callbacks=[EpochClock()],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
            devices=1,
        )

    kind = {"sasrec": SASRecModel, "hstu": HSTUModel}[settings["model"]]
    return kind(
        n_blocks=settings["blocks"],
        n_heads=settings["heads"],
        n_factors=settings["width"],
        session_max_len=settings["length"],
        dropout_rate=settings["dropout"],
        loss="softmax",
        lr=settings["learning_rate"],
        batch_size=settings["batch"],
        get_trainer_func=trainer,
    )


def train(model: SASRecModel | HSTUModel, dataset: Dataset, epochs: int) -> None:
    """Train some epochs more, from where the model stands."""
    model.fit_partial(dataset, min_epochs=epochs, max_epochs=epochs)


def clock(model: SASRecModel | HSTUModel) -> EpochClock:
    """Return the clock of all epochs so far; fitting works on a copy of the trainer, so it is there."""
    return next(one for one in model.fit_trainer.callbacks if isinstance(one, EpochClock))


def positions_with_a_loss(model: SASRecModel | HSTUModel) -> int:
    """Return the targets of one epoch: n - 1 of each sequence of n events in the model's own loader; no padding."""
    return sum(len(events) - 1 for events in model.data_preparator.get_dataloader_train().dataset.sessions)


def dataset_of(rows: Rows) -> Dataset:
    """Return rows as RecTools wants them, each with weight 1."""
    return Dataset.construct(_frame(rows))


def lists_of(model: SASRecModel | HSTUModel, history: Rows, asked: Rows, k: int) -> dict[int, list[int]]:
    """Return the k best items of each person after their history: whole catalogue, the history's items removed.

    HSTU is told the time of the row that is asked for; SASRec knows no times.
    """
    context = _frame(asked).drop(columns=[Columns.Item]) if model.require_recommend_context else None
    found = model.recommend(
        users=np.unique(asked["user_id"]), dataset=dataset_of(history), k=k, filter_viewed=True, context=context
    )
    found = found.sort_values([Columns.User, Columns.Rank])
    return {int(user): rows.tolist() for user, rows in found.groupby(Columns.User)[Columns.Item]}


def _frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(
        {
            Columns.User: rows["user_id"],
            Columns.Item: rows["item_id"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(rows["at"], unit="s"),
        }
    )
