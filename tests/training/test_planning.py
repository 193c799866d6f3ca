"""Plans of embedding tables on declared clusters: sharded where they outgrow a GPU, refused with the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from playbill.errors import ConfigError, TrainingError
from playbill.features.build import write_features
from playbill.features.spec import Encoding, FeatureSpec, Field, Side
from playbill.training.plan_tables import run
from playbill.training.planning.planner import Table, constraints, plan_tables
from playbill.training.planning.settings import Cluster, PlanTablesSettings
from playbill.training.runs import RunRecord

EIGHT = Cluster(hbm_gb=80)


def test_a_table_larger_than_a_gpu_is_spread_and_a_small_one_is_not() -> None:
    plan = plan_tables([Table("item", 1_000_000_000, 64, 51), Table("city", 1000, 16)], EIGHT, batch_per_gpu=4096)
    item, city = plan.tables
    assert item.sharding in ("row_wise", "column_wise") and sorted(set(item.ranks)) == list(range(8))
    assert city.sharding == "table_wise" and len(city.ranks) == 1
    assert {item.kernel, city.kernel} == {"fused"} and city.shard == [1000, 16]
    # 10^9 rows of 64 floats and a float of optimizer state: 242.1 GB; buffers come on top
    assert 242.1 < item.hbm_gb < 300 and item.shard[0] * item.shard[1] * 8 == 1_000_000_000 * 64
    assert sum(r.hbm_gb for r in plan.ranks) == pytest.approx(item.hbm_gb + city.hbm_gb)
    assert all(r.hbm_gb <= plan.hbm_free_gb == 68 for r in plan.ranks)
    assert plan.step_ms == max(r.step_ms for r in plan.ranks) > 0


def test_a_table_that_fits_one_gpu_stays_whole_beside_others() -> None:
    tables = [Table(f"t{i}", 10_000_000, 64) for i in range(16)]
    plan = plan_tables(tables, EIGHT, batch_per_gpu=512)
    assert {t.sharding for t in plan.tables} == {"table_wise"}
    assert sorted(rank for t in plan.tables for rank in t.ranks) == sorted(list(range(8)) * 2)


def test_faster_memory_shortens_the_step() -> None:
    slow, fast = (
        plan_tables([Table("item", 10_000_000, 64, 51)], Cluster(gpus_per_host=1, hbm_gb_per_s=s), 4096)
        for s in (900, 3600)
    )
    assert slow.step_ms > 1.5 * fast.step_ms


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    # 3 * 10^9 * 65 * 4 bytes = 726.4 GB against 8 * 68
    with pytest.raises(TrainingError, match=r"need 726.4 GB .*item 726.4 GB.* 8 GPUs offer 544.0 GB \(68.0 GB each"):
        plan_tables([Table("item", 3_000_000_000, 64)], EIGHT, batch_per_gpu=512)
    more = plan_tables([Table("item", 3_000_000_000, 64)], Cluster(hosts=2), batch_per_gpu=512)
    assert sorted(set(more.tables[0].ranks)) == list(range(16))
    cached = plan_tables([Table("item", 3_000_000_000, 64)], EIGHT, batch_per_gpu=512, host_memory=True)
    assert cached.tables[0].kernel == "fused_uvm_caching" and cached.tables[0].ddr_gb > 500


def test_training_and_planning_share_their_constraints() -> None:
    cpu, cuda = (constraints({"item": 2**30}, device)["item"] for device in ("cpu", "cuda"))
    assert cuda.sharding_types == ["table_wise", "row_wise", "column_wise"]
    assert cpu.sharding_types == ["table_wise", "column_wise"]
    assert cpu.compute_kernels == cuda.compute_kernels == ["fused"]
    assert constraints({"city": 2**20}, "cuda")["city"].sharding_types == ["table_wise"]


def test_the_job_plans_the_tables_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs" / "shop"
    path.mkdir(parents=True)
    city = Field(name="city", side=Side.USER, encoding=Encoding.CATEGORY, size=5)
    spec = FeatureSpec(
        user_id_type="int64",
        item_id_type="int64",
        history_length=50,
        events=[],
        fields=[city, Field(name="age", side=Side.USER, encoding=Encoding.NUMBER)],
        num_items=9,
        vocabularies={},
    )
    write_features(path, spec, {})
    (path / "config.json").write_bytes(msgspec.json.encode({"model": {"dim": 32, "field_dim": 8}}))
    record = RunRecord(model="two_tower", fingerprint="", tables="shop", tables_fingerprint="", spec_hash=spec.hash())
    (path / "run.json").write_bytes(msgspec.json.encode(record))
    out = tmp_path / "plan.json"
    settings = PlanTablesSettings(home=str(tmp_path), run="shop", rows={"item": 800_000_000}, out=str(out))
    assert run(settings) == 0
    said = capsys.readouterr().out
    assert "800,000,000" in said and "user_city" in said and "1 host(s) of 8 GPUs" in said
    tables = {t["name"]: t for t in json.loads(out.read_text())["plan"]["tables"]}
    assert (tables["item"]["rows"], tables["item"]["width"]) == (800_000_000, 32)
    assert (tables["user_city"]["rows"], tables["user_city"]["width"]) == (5, 8) and "user_age" not in tables
    with pytest.raises(ConfigError, match=r"the run shop has no table 'itme'; it has: item, user_city"):
        run(PlanTablesSettings(home=str(tmp_path), run="shop", rows={"itme": 5}))
    with pytest.raises(ConfigError, match="nothing to plan: name a run"):
        run(PlanTablesSettings(home=str(tmp_path)))
    with pytest.raises(TrainingError, match="no training run in .*nowhere; run `playbill train`"):
        run(PlanTablesSettings(home=str(tmp_path), run="nowhere"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rows": {"item": 0}}, "rows.item must be > 0, got 0"),
        ({"rows": {"item": 5}, "widths": {"user": 4}}, r"widths names \['user'\], tables are: item"),
        ({"rows": {"item": 5}, "batch_per_gpu": 0}, "batch_per_gpu must be >= 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PlanTablesSettings(**settings)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(("name", "value"), [("hosts", 0), ("hbm_gb", 0.0), ("reserved_share", 1.0)])
def test_bad_clusters_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"cluster.{name} must be"):
        Cluster(**{name: value})  # type: ignore[arg-type]  # wrong on purpose
