"""Training samples a second of torch-rechub's DCNv2, by its own trainer, on columns that a file brings.

    python rechub_speed.py COLUMNS.npz batch=4096 epochs=1 dim=16 layers=2 rank=32 hidden=128 threads=2

The file holds `label`, `score`, one array for each category (`size_<name>` says of how many values), [n] or [n, width]
with -1 where there is none; a size of 0 is a number's. Prints one line of json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import numpy as np
import torch
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models.ranking import DCNv2
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator


def main(path: str, arguments: list[str]) -> None:
    """Train and print."""
    given = {name: int(value) for name, value in (a.split("=", 1) for a in arguments)}
    torch.set_num_threads(given["threads"])
    torch.manual_seed(1)
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files}
    label = columns.pop("label")
    features, data = [DenseFeature("score")], {"score": columns.pop("score")}
    for name in [n for n in columns if not n.startswith("size_")]:
        size, values = int(columns[f"size_{name}"]), columns[name]
        width = given["dim"]  # the model joins features of one width alone
        if not size:
            features.append(DenseFeature(name))
            data[name] = values
        elif values.ndim == 2:
            features.append(SequenceFeature(name, vocab_size=size + 1, embed_dim=width, pooling="mean", padding_idx=0))
            data[name] = values + 1
        else:
            features.append(SparseFeature(name, vocab_size=size, embed_dim=width))
            data[name] = values
    mlp = {"dims": [given["hidden"], given["hidden"] // 2], "dropout": 0.2, "activation": "relu"}
    model = DCNv2(features, given["layers"], mlp, low_rank=given["rank"], num_experts=1)
    batches, _, _ = DataGenerator(data, label).generate_dataloader(
        x_val=data, y_val=label, x_test=data, y_test=label, batch_size=given["batch"]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = CTRTrainer(model, n_epoch=1, device="cpu", model_path=folder)
        trainer.train_one_epoch(batches)  # to warm up
        begin, cpu = time.perf_counter(), time.process_time()
        for _ in range(given["epochs"]):
            trainer.train_one_epoch(batches)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    width = sum(f.embed_dim for f in features)
    samples = given["epochs"] * len(label)
    rates = {"samples_per_s": samples / seconds, "samples_per_cpu_s": samples / cpu}
    print(json.dumps({**rates, "crossed_width": width, "parameters": _size(model)}))


def _size(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
