"""Positions with a loss per second of fit: `playbill train` beside RecTools' SASRec, in turns on one machine.

    python tests/benchmarks/proof_training_speed.py peer=VENV/bin/python [home=var] [data=../shared/data] [epochs=3]
        [query=sasrec] [width=64] [length=200] [blocks=2] [heads=2] [batch=128] [rounds=2] [threads=0]
        [precisions=32-true,bf16-mixed] [extra=model.averaging=0.99,...]

MovieLens-1M, leave-last-out, full cross-entropy over the whole catalogue on both sides, same width, length, blocks,
heads, dropout, learning rate, epochs and threads. `batch` is the peer's: people a step. Ours reads as many events a
step as a step of the peer has positions with a loss on average. How to make the peer's venv: peers/README.md.

Positions are those that enter the loss, padding not counted: the peer's n - 1 for each sequence of n events that its
loader holds, which are the last length + 1 events of each person; ours the targets of the batches of one epoch, which
are all training events. Seconds are those of the epochs without preparation and validation; the peer's first epoch
warms up and is left out, ours is left in. Validation NDCG@10 is of the whole catalogue without the history. Peak memory
is the process's, from its start. `batches_s` is the time that putting ours together takes in an epoch, done alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from record import machine, record

from playbill.dataset.dataset import open_dataset
from playbill.dataset.ends import learning_ends
from playbill.training.retrieval.data import Source
from playbill.training.runs import read_run

PEERS = Path(__file__).parent / "peers"
DEFAULTS: dict[str, Any] = {
    "peer": "",
    "home": "var",
    "data": "../shared/data",
    "query": "sasrec",
    "width": 64,
    "length": 200,
    "blocks": 2,
    "heads": 2,
    "batch": 128,
    "epochs": 3,
    "rounds": 2,
    "threads": 0,
    "precisions": "32-true,bf16-mixed",
    "extra": "",
}
DROPOUT, LEARNING_RATE = 0.2, 0.001


def our_settings(given: dict[str, Any], precision: str, batch_tokens: int) -> list[str]:
    """Return what `playbill train` is told: the peer's model and task, and nothing of ours that costs or helps."""
    return [
        f"home={given['home']}",
        "tables=ml-1m",
        "run=training-speed",
        "split.kind=leave_last_out",
        "split.order_column=sasrec_pos",
        f"features.history_length={given['length']}",
        f"model.query={given['query']}",
        f"model.dim={given['width']}",
        f"model.blocks={given['blocks']}",
        f"model.heads={given['heads']}",
        f"model.dropout={DROPOUT}",
        f"model.learning_rate={LEARNING_RATE}",
        f"model.batch_tokens={batch_tokens}",
        f"model.max_epochs={given['epochs']}",
        "model.loss=full_softmax",
        "model.similarity=dot",
        "model.stale_share=0",
        "model.empty_share=0",
        "model.half_life_days=0",
        "model.validate_every=1",
        f"precision={precision}",
        f"threads={given['threads']}",
        "force=true",
        *filter(None, given["extra"].split(",")),
    ]


def peer(given: dict[str, Any], precision: str) -> dict[str, Any]:
    """Return the figures that the peer's own program prints."""
    names = ("data", "width", "length", "blocks", "heads", "batch", "epochs", "threads")
    settings = [f"{name}={given[name]}" for name in names]
    settings += [f"precision={precision}", f"dropout={DROPOUT}", f"learning_rate={LEARNING_RATE}"]
    output, _ = run([given["peer"], "-W", "ignore", str(PEERS / "rectools_speed.py"), *settings])
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures


def ours(given: dict[str, Any], precision: str, batch_tokens: int) -> dict[str, Any]:
    """Return the figures of one training run of ours."""
    settings = our_settings(given, precision, batch_tokens)
    _, peak_mib = run([sys.executable, "-m", "playbill.cli", "train", *settings])
    there = read_run(Path(given["home"]) / "runs" / "training-speed", "two_tower")
    positions, steps, batches_s = one_epoch(there.settings)
    # the job's own clock counts steps of batch_tokens; back to seconds, and on to the positions themselves
    fit_s = there.record.epochs * steps * batch_tokens / there.record.samples_per_second
    return {
        "settings": msgspec.to_builtins(there.settings.model) | {"precision": precision},
        "positions_per_epoch": positions,
        "steps_per_epoch": steps,
        "epoch_s": round(fit_s / there.record.epochs, 2),
        "batches_s": round(batches_s, 2),
        "positions_per_s": round(there.record.epochs * positions / fit_s, 1),
        "valid": {"ndcg_at_10": round(there.record.best, 5), "epoch": there.record.best_epoch},
        "peak_memory_mib": peak_mib,
    }


def one_epoch(settings: Any) -> tuple[int, int, float]:
    """Return the targets of one epoch's batches, its steps, and the seconds that putting the batches together takes."""
    dataset = open_dataset(Path(settings.home) / "tables" / settings.tables, settings.features, settings.split)
    source = Source(dataset, learning_ends(dataset), settings.model, settings.seed)
    begun = time.perf_counter()
    positions = sum(len(batch.target) for batch in source.batches(0, 0, 0, 1))
    return positions, source.steps, time.perf_counter() - begun


def run(command: list[str]) -> tuple[str, int]:
    """Return what a program prints and the most memory that it held, in MiB; ends this one where it fails."""
    # for both alike: threads that wait for work sleep, as `playbill train` sets it
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}\n{output}")
    process.returncode = 0  # reaped above, for its memory
    return output, usage.ru_maxrss // 1024


def main(arguments: list[str]) -> int:
    """Measure in turns, print, record."""
    given = dict(DEFAULTS)
    for name, _, value in (one.partition("=") for one in arguments):
        given[name] = type(DEFAULTS[name])(value)
    if not Path(given["peer"]).is_file():
        print("peer=VENV/bin/python is missing; tests/benchmarks/peers/README.md says how to make it", file=sys.stderr)
        return 2
    if not (Path(given["home"]) / "tables" / "ml-1m").is_dir():
        folder = Path(given["data"]) / "ml-1m"
        prepare = ["prepare", "source=ml-1m", f"source.folder={folder}", f"home={given['home']}"]
        run([sys.executable, "-m", "playbill.cli", *prepare])
    started = machine()
    figures: dict[str, Any] = {
        "settings": {k: v for k, v in given.items() if k not in ("peer", "home", "data")},
        "dropout": DROPOUT,
        "learning_rate": LEARNING_RATE,
    }
    for precision in given["precisions"].split(","):
        rounds: dict[str, list[dict[str, Any]]] = {"peer": [], "ours": []}
        for number in range(given["rounds"]):
            rounds["peer"].append(peer(given, precision))
            latest = rounds["peer"][-1]
            tokens = round(latest["positions_per_epoch"] / latest["steps_per_epoch"])
            rounds["ours"].append(ours(given, precision, tokens))
            for side, found in rounds.items():
                one = found[-1]
                print(
                    f"{precision} round {number + 1} {side}: {one['positions_per_s']:,.0f} positions/s, validation "
                    f"NDCG@10 {one['valid']['ndcg_at_10']:.4f}, {one['peak_memory_mib']:,} MiB",
                    flush=True,
                )
        middle = {side: statistics.median(one["positions_per_s"] for one in found) for side, found in rounds.items()}
        ratio = middle["ours"] / middle["peer"]
        last = rounds["ours"][-1]
        share = last["batches_s"] / last["epoch_s"]
        print(f"{precision}: {ratio:.2f} times the peer; putting batches together is {share:.1%} of an epoch's time")
        figures[precision] = rounds | {"ours_over_peer": round(ratio, 3), "batches_share": round(share, 4)}
    print(f"on {started['cpu']}, {started['cores']} cores: {record('training_speed', figures, started)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
