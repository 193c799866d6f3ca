"""How fast RecTools trains: positions with a loss per second of fit, and what the model is worth then.

    VENV/bin/python rectools_speed.py [width=64] [length=200] [blocks=2] [heads=2] [batch=128] [epochs=3] [save=FILE]

Prints one line of json. Not timed: the first epoch, which warms up, preparation of the data, and validation.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ml1m import arguments, figures, leave_last_out, parts, peak_mib, write_result
from rectools_model import MODEL, build, clock, dataset_of, lists_of, positions_with_a_loss, train


def main(given: list[str]) -> None:
    """Train, measure, print."""
    settings = arguments(given, MODEL | {"epochs": 3, "save": ""})
    if settings["epochs"] < 2:
        raise SystemExit("epochs must be >= 2: the first is not timed")
    rows = leave_last_out(settings["data"], settings["people"])
    history, valid = parts(rows, "train"), parts(rows, "valid")
    model = build(settings)
    before = peak_mib()
    train(model, dataset_of(history), settings["epochs"])
    timed = clock(model)
    positions = positions_with_a_loss(model)
    peak = peak_mib()
    result = {
        "settings": settings,
        "positions_per_epoch": positions,
        "steps_per_epoch": len(model.data_preparator.get_dataloader_train()),
        "epoch_s": [round(one, 2) for one in timed.seconds],
        "epoch_processor_s": [round(one, 2) for one in timed.processor_s],
        "positions_per_s": round(positions * len(timed.seconds[1:]) / sum(timed.seconds[1:]), 1),
        "positions_per_processor_s": round(positions * len(timed.seconds[1:]) / sum(timed.processor_s[1:]), 1),
        "valid": figures(lists_of(model, history, valid, 10), valid, 10),
        "peak_memory_mib": peak,
        "memory_before_fit_mib": before,
    }
    write_result(Path(settings["save"]) if settings["save"] else None, result)


if __name__ == "__main__":
    main(sys.argv[1:])
