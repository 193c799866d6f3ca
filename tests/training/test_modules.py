"""Training in this process: plain twins, resumption, precision, sharding, validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from scipy.special import expit

from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.ends import learning_ends
from playbill.errors import TrainingError
from playbill.features.settings import FeatureSettings
from playbill.training.checkpoints import Checkpoints
from playbill.training.distributed import check_fused, copy_in, gather_full, shard
from playbill.training.fit import fit, processes
from playbill.training.progress import Report
from playbill.training.ranking import plain as ranker_plain
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval import plain as tower_plain
from playbill.training.retrieval.data import item_arrays
from playbill.training.retrieval.module import TowerModule
from playbill.training.retrieval.towers import LONGEST
from playbill.training.runs import read_record
from playbill.training.settings import Loss, Tables, TrainSettings, TwoTower
from playbill.training.train import run
from playbill.training.validation import Validation, seen_mask

FEATURES = FeatureSettings(history_length=10)
TOWERS = TwoTower(dim=16, field_dim=4, hidden=16, heads=2, batch_tokens=256, max_epochs=2, dropout=0.1)
RANKER = Ranker(dim=16, field_dim=4, hidden=16, heads=2, batch_size=128, max_epochs=2, cross_rank=4, hard_pool=20)


def settings(**changes: Any) -> TrainSettings:
    return dataclasses.replace(
        TrainSettings(tables="tiny", features=FEATURES, model=TOWERS, threads=1, log_every_steps=5), **changes
    )


@pytest.fixture(scope="module")
def dataset(tiny_tables: Path) -> Dataset:
    return open_dataset(tiny_tables, FEATURES, settings().split)


@pytest.fixture(scope="module")
def trained(tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a finished two_tower run and a finished ranker run."""
    home = tmp_path_factory.mktemp("home")
    (home / "tables").mkdir()
    (home / "tables" / "tiny").symlink_to(tiny_tables)
    run(settings(home=str(home)))
    run(settings(home=str(home), model=RANKER))
    return home


@pytest.fixture
def group() -> Iterator[None]:
    with processes(settings()):
        yield


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_run_folder(trained: Path) -> None:
    for name, model in (("tiny-two_tower", "two_tower"), ("tiny-ranker", "ranker")):
        folder = trained / "runs" / name
        record = read_record(folder)
        assert record is not None and record.completed and record.model == model
        assert record.metric == "ndcg_at_10" and 0 < record.best <= 1 and record.samples_per_second > 0
        there = {str(p.relative_to(folder)) for p in folder.rglob("*")}
        assert {"config.json", "features.json", "metrics.csv", "vocab/item.parquet", "checkpoints/best.ckpt"} <= there
        assert "scores.npz" not in there
    assert record.retrieval_run == "tiny-two_tower" and record.report["retrieval_ndcg_at_10"] > 0


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_plain_towers_answer_as_the_trained_ones(trained: Path, dataset: Dataset, group: None, batch: int) -> None:
    folder = trained / "runs" / "tiny-two_tower"
    query_tower, item_tower = tower_plain.load_plain([folder], dataset.item_arrays)
    module = TowerModule(dataset, learning_ends(dataset), settings(), None)
    module.dmp = shard(module.build(torch.device("cpu")), torch.device("cpu"), None, seed=1)
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    module.dmp.load_state_dict({k.removeprefix("dmp."): v for k, v in state.items()}, strict=True)
    module.eval()
    batches = next(iter(Validation(dataset, 10).batches(0, 1)))
    queries = {name: array[:batch] for name, array in batches.arrays.items()}
    # an empty history, and one of nothing but an unknown item
    queries["history_item"] = queries["history_item"].copy()
    queries["history_item"][0] = -1
    queries["history_item"][-1] = [0] + [-1] * 9
    items = item_arrays(dataset, np.arange(batch))  # the unknown item first
    with torch.no_grad():
        vectors = module.vectors()
        query = module.query(queries, vectors)
        plain_query, plain_items = query_tower(tensors(queries)), item_tower(tensors(items))
    longest = vectors[1:].norm(dim=1).max() / LONGEST
    torch.testing.assert_close(plain_query[:, :16], torch.nn.functional.normalize(query, dim=1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(plain_items[1:, :16], vectors[1:batch] / longest, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(plain_query.norm(dim=1), torch.ones(len(query)))
    torch.testing.assert_close(plain_items.norm(dim=1), torch.ones(batch))
    # filling items up to unit length changes no order: the filled columns of a query are 0
    assert (plain_query[:, 16:] == 0).all() and plain_query.shape[1] == 20
    assert set(queries) == set(query_tower.inputs) and list(items) == item_tower.inputs


def test_plain_ranker_scores_each_candidate_for_its_own_user(trained: Path, dataset: Dataset) -> None:
    ranker = ranker_plain.load_plain(trained / "runs" / "tiny-ranker")
    batch = next(iter(Validation(dataset, 10).batches(0, 1)))
    queries = {name: array[:3] for name, array in batch.arrays.items()}
    items = item_arrays(dataset, np.asarray([5, 6, 0, 5, 9, 7]))
    users = np.asarray([0, 0, 1, 1, 2, 0])
    score = np.linspace(-1, 1, 6, dtype=np.float32)
    with torch.no_grad():
        together = ranker(tensors({**queries, "cand_user": users, **items, "retrieval_score": score}))
        for n, user in enumerate(users):
            alone = ranker(
                tensors(
                    {name: a[user : user + 1] for name, a in queries.items()}
                    | {name: a[n : n + 1] for name, a in items.items()}
                    | {"cand_user": np.zeros(1, np.int64), "retrieval_score": score[n : n + 1]}
                )
            )
            for whole, one in zip(together, alone, strict=True):
                torch.testing.assert_close(whole[n : n + 1], one, atol=1e-5, rtol=1e-5)
    interact, like, p_interact, p_like = (answer.numpy().astype(np.float64) for answer in together)
    maps = ranker_plain.read_calibration(trained / "runs" / "tiny-ranker")
    told = maps["interact"](expit(interact)) if "interact" in maps else expit(interact)
    np.testing.assert_allclose(p_interact, told, atol=1e-6)
    liked = maps["like"](expit(interact) * expit(like)) if "like" in maps else p_interact * expit(like)
    np.testing.assert_allclose(p_like, np.minimum(liked, p_interact), atol=1e-6)
    assert set(ranker.inputs) == {*queries, *items, "cand_user", "retrieval_score"} and len(ranker.outputs) == 4


def test_an_untrained_ranker_keeps_the_order_of_the_retrieval(dataset: Dataset) -> None:
    net = ranker_plain.build_net(dataset.spec, RANKER, score_scale=14.0, biases=[-3.0, 0.0]).eval()
    ranker = ranker_plain.PlainRanker(dataset.spec, RANKER).eval()
    ranker.net = net
    batch = next(iter(Validation(dataset, 10).batches(0, 1)))
    score = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    arrays = {name: a[:1] for name, a in batch.arrays.items()} | item_arrays(dataset, np.arange(1, 10))
    with torch.no_grad():
        logit, *_ = ranker(tensors(arrays | {"cand_user": np.zeros(9, np.int64), "retrieval_score": score}))
    torch.testing.assert_close(logit, torch.from_numpy(14 * score - 3), atol=1e-4, rtol=1e-4)


class Breaking(Checkpoints):
    """Breaks a training off after a step, as a crash would."""

    stop = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *_)
        if trainer.global_step == self.stop:
            raise RuntimeError("broken off")


def train_towers(
    dataset: Dataset, folder: Path, chosen: TrainSettings, stop: int = 0, resume: bool = False
) -> dict[str, torch.Tensor]:
    """Train in this process and return the final weights; break off after `stop` steps, or go on from last.ckpt."""
    module = TowerModule(dataset, learning_ends(dataset), chosen, Validation(dataset, 10))
    checkpoints = Breaking(folder, "ndcg_at_10", 4, module.steps_per_epoch, patience_epochs=0)
    checkpoints.stop = stop
    report = Report("towers", 256, 1, None, checkpoints)
    fit(module, chosen, chosen.model.max_epochs, report, checkpoints, folder / "last.ckpt" if resume else None)
    state: dict[str, torch.Tensor] = torch.load(folder / "final.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize(
    "changes",
    [{}, {"tables": Tables.fused}, {"tables": Tables.fused, "loss": Loss.in_batch, "negatives": 64}],
    ids=["dense", "fused", "in_batch"],
)
def test_going_on_gives_the_same_weights(
    dataset: Dataset, tmp_path: Path, group: None, changes: dict[str, Any]
) -> None:
    chosen = settings(model=dataclasses.replace(TOWERS, **changes))
    steps = TowerModule(dataset, learning_ends(dataset), chosen, None).steps_per_epoch
    expected = train_towers(dataset, tmp_path / "whole", chosen)
    for stop in (6, steps + 5):  # in the first epoch, and in the second
        with pytest.raises(RuntimeError, match="broken off"):
            train_towers(dataset, tmp_path / f"{stop}", chosen, stop=stop)
        got = train_towers(dataset, tmp_path / f"{stop}", chosen, resume=True)
        assert got.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensor, got[name]), (stop, name)


def test_a_log_on_disk_trains_the_same_weights(
    dataset: Dataset, tiny_tables: Path, tmp_path: Path, group: None
) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "tiny").symlink_to(tiny_tables)
    streamed = open_dataset(tmp_path / "tables" / "tiny", FEATURES, settings().split, stream_above_events=0)
    assert list((tmp_path / "cache" / "pools").iterdir())
    expected = train_towers(dataset, tmp_path / "memory", settings())
    got = train_towers(streamed, tmp_path / "disk", settings())
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name


def test_bf16(dataset: Dataset, tmp_path: Path, group: None) -> None:
    full = train_towers(dataset, tmp_path / "full", settings())
    half = train_towers(dataset, tmp_path / "half", settings(precision="bf16-mixed"))
    difference = max(float((full[name] - half[name]).abs().max()) for name in full)
    assert all(t.dtype == torch.float32 for t in half.values() if t.is_floating_point())
    assert 0 < difference < 0.5


def test_fused_tables_are_never_planned_dense(dataset: Dataset, group: None) -> None:
    # the planner left alone would make tables this small data-parallel: hours have 24 rows, weekdays 7
    module = TowerModule(dataset, learning_ends(dataset), settings(), None)
    dmp = shard(module.build(torch.device("meta")), torch.device("cpu"), 0.05, seed=1)
    assert {p for p, _ in dmp.named_parameters()} >= {"encoder.query_fields.embedding_bags.context_weekday.weight"}
    assert set(dmp.fused_optimizer.state_dict()["state"]) == {
        "encoder.items.embeddings.item.weight",
        "encoder.item_fields.embedding_bags.item_categories.weight",
        "encoder.query_fields.embedding_bags.context_hour.weight",
        "encoder.query_fields.embedding_bags.context_weekday.weight",
    }
    plan = dmp.plan
    check_fused(plan)
    next(iter(plan.plan["encoder.query_fields"].values())).compute_kernel = "dense"
    with pytest.raises(TrainingError, match="without the fused optimizer: encoder.query_fields.context_"):
        check_fused(plan)


def test_tables_start_the_same_fused_or_dense(dataset: Dataset, group: None) -> None:
    module = TowerModule(dataset, learning_ends(dataset), settings(), None)
    full = []
    for device, rate in (("meta", 0.05), ("cpu", None)):
        torch.manual_seed(3)
        dmp = shard(module.build(torch.device(device)), torch.device("cpu"), rate, seed=7)
        full.append(gather_full(dict(dmp.state_dict())))
    assert full[0].keys() == full[1].keys()
    for name, tensor in full[0].items():
        assert torch.equal(tensor, full[1][name]), name


def test_copy_in_refuses_another_size() -> None:
    with pytest.raises(TrainingError, match=r"tensor of size \(2, 3\), the model one of \(3, 2\)"):
        copy_in(torch.zeros(3, 2), torch.ones(2, 3))


def test_validation_is_the_same_dealt_to_one_and_to_three(dataset: Dataset) -> None:
    validation = Validation(dataset, 10)
    lists = np.random.default_rng(1).permuted(np.tile(np.arange(1, 301), (len(validation.queries), 1)), axis=1)

    def sums(processes: int) -> np.ndarray:
        batches = [list(validation.batches(p, processes)) for p in range(processes)]
        assert len({tuple(len(b.rows) for b in dealt) for dealt in batches}) == 1, "each must ask equally often"
        return sum(validation.metrics(lists[b.rows], b) for dealt in batches for b in dealt)  # type: ignore[return-value]  # not empty

    np.testing.assert_allclose(sums(3), sums(1))
    assert sums(3)[-1] == len(validation.queries)


def test_seen_mask() -> None:
    indptr, item = np.asarray([0, 2, 2, 5]), np.asarray([3, 1, 2, 2, 4])
    mask = seen_mask(indptr, item, np.asarray([2, 0, 1]), 4)
    assert mask.tolist() == [[False, True, False, True], [True, False, True, False], [False] * 4]


def test_towers_of_a_finished_run_are_refused_when_altered(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training run in"):
        tower_plain.load_plain([tmp_path], {})
    with pytest.raises(TrainingError, match="is a run of ranker, expected two_tower"):
        tower_plain.load_plain([trained / "runs" / "tiny-ranker"], {})
