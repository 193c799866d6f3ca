"""Parts of the ranker by hand: attention of candidates, experts, positions, and columns that give a label away."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from playbill.dataset.dataset import Examples, open_dataset
from playbill.dataset.labels import row_labels
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tasks import Task
from playbill.errors import ConfigError, TrainingError
from playbill.features.settings import FeatureSettings
from playbill.training.ranking.data import EventRows
from playbill.training.ranking.history import TargetAttention
from playbill.training.ranking.leaks import refuse_leaks
from playbill.training.ranking.network import Experts
from playbill.training.ranking.position import PositionTower
from playbill.training.ranking.sampling import Touched
from playbill.training.ranking.scores import Scored
from playbill.training.ranking_settings import Ranker


def attention_inputs(users: int, length: int, dim: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    there = torch.ones(users, length)
    there[0, 2:] = 0
    there[1] = 0
    return {
        "history": torch.randn(users, length, dim) * there.unsqueeze(-1),
        "event": torch.ones(users, length, dtype=torch.int64) * there.long(),
        "value": torch.randn(users, length) * there,
        "age": torch.rand(users, length) * there,
        "there": there,
    }


def test_candidates_attend_to_the_history_of_their_own_person() -> None:
    attention = TargetAttention(5, 6, 2, 4)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    given, item = attention_inputs(3, 5, 6), torch.randn(12, 6)
    users = torch.arange(3).repeat_interleave(4)
    dealt = attention(**given, cand_user=users, item=item, per_user=4)
    loose = attention(**given, cand_user=users, item=item, per_user=0)
    torch.testing.assert_close(dealt, loose)
    assert (loose[4:8] == 0).all(), "an empty history says nothing"
    # by hand: candidate 0 of person 0, who has two events
    read = attention.events(torch.cat([given["history"][0], given["value"][0, :, None], given["age"][0, :, None]], -1))
    key, answer = (read + attention.event(given["event"][0])).split(4, -1)
    scores = (key[:2] @ attention.ask(item[0])) / 2 + attention.position[:2]
    weights = scores.exp() / (1 + scores.exp().sum())
    torch.testing.assert_close(loose[0], weights @ answer[:2])
    # what comes behind the end of a history changes nothing
    given["event"][0, 3] = 2
    torch.testing.assert_close(attention(**given, cand_user=users, item=item, per_user=0), loose)


def test_each_task_weighs_the_experts_itself() -> None:
    torch.manual_seed(2)
    experts = Experts(5, 7, 3, 4, tasks=2, dropout=0.5).eval()
    first = torch.randn(6, 5)
    found = experts(first)
    for n in range(6):
        inner = torch.nn.functional.gelu(experts.into(first[n])).view(4, 7)
        answers = torch.nn.functional.gelu(
            torch.stack([inner[e] @ experts.weight[e] + experts.bias[e, 0] for e in range(4)])
        )
        gates = torch.softmax(experts.gate(first[n]).view(2, 4), -1)
        torch.testing.assert_close(found[n], gates @ answers)


def test_the_first_position_counts_as_seen_and_later_ones_as_the_last() -> None:
    tower = PositionTower(3)
    with torch.no_grad():
        tower.seen.weight.copy_(torch.tensor([[9.0], [0.0], [math.log(1 / 3) / 10]]))
    seen = tower(torch.tensor([[0, 1], [2, 9]])).exp()
    torch.testing.assert_close(seen, torch.tensor([[1.0, 0.5], [0.25, 0.25]]))
    seen.sum().backward()
    assert tower.seen.weight.grad is not None and tower.seen.weight.grad[0] == 0


@pytest.mark.parametrize(
    ("features", "where"),
    [
        ({"context": ["verdict"]}, "verdict' of events"),
        ({"context": ["stars"]}, "stars' of events"),
        ({"context": ["code"]}, "code' of events"),
        ({"context": ["away"]}, "away' of events"),
        ({}, ""),
    ],
)
def test_a_column_that_gives_the_label_away_is_named(
    make_tables: Callable[..., Path], features: dict[str, Any], where: str
) -> None:
    draw = np.random.default_rng(1)
    value = draw.integers(1, 6, 600)
    noise = draw.random(600)
    events = [
        {
            "event_id": n,
            "user_id": int(draw.integers(30)),
            "event": "rate",
            "at": n * 3_600_000_000,
            "item_id": int(draw.integers(20)),
            "value": float(value[n]),
            "verdict": ("bad", "good")[int(value[n] >= 4)],
            "stars": value[n] / 5 + 0.01 * noise[n],
            "code": (0.0, 3.0, 9.0, 5.0, 1.0, 7.0)[value[n]],  # for the stars, in no order
            "away": (noise[n] - 0.5) / 3 if value[n] >= 4 else np.sign(noise[n] - 0.5) * (0.5 + noise[n]),
            "mood": ("bad", "good")[int(noise[n] < 0.3 + 0.1 * value[n])],
        }
        for n in range(600)
    ]
    items = [{"item_id": n, "price": float(n)} for n in range(20)]
    path = make_tables(events=events, items=items, users=[{"user_id": n} for n in range(30)])
    dataset = open_dataset(
        path, FeatureSettings(**({"context": ["mood"]} | features)), SplitSettings(train=0.9, valid=0.05)
    )
    tasks = Ranker().tasks
    pool = dataset.pool
    rows = Examples(pool.person, np.arange(len(pool)), pool.offsets[pool.person], np.arange(len(pool)), pool.at)
    none = np.zeros((len(pool), 1), np.float32)
    data = EventRows(
        rows,
        *row_labels(path, dataset, rows, tasks, int(pool.at.max()) + 1),
        weight=np.ones(len(pool), np.float32),
        scored=Scored(none, none, np.zeros((len(pool), 1), np.int32), none[:, 0], 1.0),
        touched=Touched(pool.person, pool.item, 30, 20),
    )
    if not where:
        refuse_leaks(dataset, data, tasks, 0.99)  # a mood is a hint, and no more
        return
    with pytest.raises(TrainingError, match=f"column '{where} alone tells the label of task 'like' apart with AUC"):
        refuse_leaks(dataset, data, tasks, 0.99)
    refuse_leaks(dataset, data, tasks, 1.0)


def test_settings_that_cannot_be() -> None:
    week = Task(name="back", returns=True, within_days=7)
    with pytest.raises(ConfigError, match="a return without parent can be learned from impressions alone"):
        Ranker(tasks=[Task(name="click"), week])
    Ranker(tasks=[Task(name="click"), week], impressions=True)
    for name, value in (("experts", -1), ("attention", -2), ("heads", -1), ("leak_auc", 0.4), ("later_share", 1.0)):
        with pytest.raises(ConfigError, match=f"model.{name} must be"):
            Ranker(**{name: value})
