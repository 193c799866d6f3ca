"""What RecTools reaches on MovieLens-1M, leave-last-out: hit rate and NDCG at 10 of the whole catalogue.

    VENV/bin/python rectools_quality.py seed=1 [model=sasrec] [width=64] [max_epochs=52] [patience=3] [out=var/peers]

Trains without the last two events of a person; every `every` epochs the one before last is asked for, and training ends
after `patience` such looks without a better NDCG@10. The best weights are then asked for the last event, with the one
before in the history. Each seed is a job of its own: where its result with the same settings is there, it is printed.
Writes <out>/rectools-<model>-seed<seed>.json and .parquet (user_id, position, item_id).
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

from ml1m import arguments, figures, finished, leave_last_out, parts, peak_mib, write_lists, write_result
from rectools_model import MODEL, build, clock, dataset_of, lists_of, positions_with_a_loss, train


def main(given: list[str]) -> None:
    """Train with early stopping, test, write."""
    defaults = MODEL | {"max_epochs": 52, "every": 2, "patience": 3, "out": "var/peers"}
    settings = arguments(given, defaults)
    path = Path(settings["out"]) / f"rectools-{settings['model']}-seed{settings['seed']}.json"
    if finished(path, settings):
        return
    rows = leave_last_out(settings["data"], settings["people"])
    history, valid, test = (parts(rows, part) for part in ("train", "valid", "test"))
    model, dataset = build(settings), dataset_of(history)
    looks: list[dict[str, float]] = []
    best, kept = -1, {}
    for epochs in range(settings["every"], settings["max_epochs"] + 1, settings["every"]):
        train(model, dataset, settings["every"])
        looks.append(figures(lists_of(model, history, valid, 10), valid, 10) | {"epochs": epochs})
        print(f"epoch {epochs}: {looks[-1]}", file=sys.stderr, flush=True)
        if looks[-1]["ndcg_at_10"] > looks[best]["ndcg_at_10"] or best < 0:
            best, kept = len(looks) - 1, copy.deepcopy(model.torch_model.state_dict())
        if len(looks) - 1 - best >= settings["patience"]:
            break
    model.torch_model.load_state_dict(kept)
    lists = lists_of(model, parts(rows, "train", "valid"), test, 10)
    write_lists(path.with_suffix(".parquet"), lists)
    result = {
        "settings": settings,
        "test": figures(lists, test, 10),
        "valid": looks[best],
        "looks": looks,
        "fit_s": round(sum(clock(model).seconds), 1),
        "positions_per_epoch": positions_with_a_loss(model),
        "peak_memory_mib": peak_mib(),
    }
    write_result(path, result)


if __name__ == "__main__":
    main(sys.argv[1:])
