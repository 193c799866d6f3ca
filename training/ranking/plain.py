"""The trained ranker as a plain module: padded arrays in, logits and probabilities out. What export and tests use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from playbill.dataset.tasks import parents
from playbill.features.spec import FeatureSpec
from playbill.measure.calibration import Calibrator
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, PlainEncoder, fields_width
from playbill.training.ranking.losses import joint_logits
from playbill.training.ranking.network import RankerNet
from playbill.training.ranking.position import NAME as POSITION
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval.plain import item_inputs, query_inputs
from playbill.training.runs import load_weights, read_run

CALIBRATION = "calibration.json"  # in the folder of a run: the map of each task


class Calibrated(nn.Module):
    """A fitted map of probabilities, as `measure.calibration.Calibrator` computes it, of their logits."""

    def __init__(self, fitted: Calibrator) -> None:
        super().__init__()
        self.bias, self.slope = fitted.bias, fitted.slope
        self.bends = list(zip(fitted.knots, fitted.changes, strict=True))

    def forward(self, logit: Tensor) -> Tensor:
        """Return probabilities [N]. Args: logit [N] float32."""
        mapped = self.bias + self.slope * logit
        for knot, change in self.bends:
            mapped = mapped + change * (logit - knot).clamp(min=0)
        return torch.sigmoid(mapped)


class PlainRanker(nn.Module):
    """U users once, N candidates broadcast from them -> logits and probabilities of all tasks.

    The logit of a task with a parent speaks of candidates of which the parent came true; its probability is that of
    both, over all candidates, which is what an objective may add to another's.

    Without calibration, `p_interact` of a ranker that learned from events is the probability under the negatives it was
    trained with (see `ranking.sampling`): it orders candidates and compares between people.

    Source: X. Ma et al., Entire Space Multi-Task Model (2018), equation 1.

    Args:
        calibrated: a fitted map by task; a task without one keeps its probability.

    Attributes:
        inputs: names of the arrays that `forward` reads, in order.
        outputs: names of what it returns, in order.
    """

    def __init__(self, spec: FeatureSpec, model: Ranker, calibrated: Mapping[str, Calibrator] | None = None) -> None:
        super().__init__()
        self.encoder = PlainEncoder(spec, model.dim, model.field_dim)
        self.net = build_net(spec, model)
        self.tasks = model.tasks
        fitted = [(calibrated or {}).get(task.name) for task in model.tasks]
        self.calibrated = nn.ModuleList(nn.Identity() if one is None else Calibrated(one) for one in fitted)
        names = [task.name for task in model.tasks]
        self.inputs = [*query_inputs(spec), "cand_user", *item_inputs(spec), "retrieval_score"]
        self.outputs = [*(f"logit_{name}" for name in names), *(f"p_{name}" for name in names)]

    def forward(self, arrays: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the logit of each task, then the probability of each, [N] float32.

        Args:
            arrays: query-side arrays [U, ...], cand_user [N] int64, item_index [N] int64 and item fields [N, ...],
                retrieval_score [N] float32, by name.
        """
        logits, _ = self.net(
            self.encoder.history(arrays),
            arrays["history_event"],
            arrays["history_value"],
            arrays["history_age"],
            (arrays["history_item"] >= 0).to(torch.float32),
            self.encoder.fields(arrays, QUERY_SIDES),
            arrays["cand_user"],
            self.encoder.item(arrays),
            self.encoder.fields(arrays, ITEM_SIDES),
            arrays["retrieval_score"],
        )
        joint = joint_logits(logits, self.tasks)
        found: list[Tensor] = []
        for t, (up, mapped) in enumerate(zip(parents(self.tasks), self.calibrated, strict=True)):
            if isinstance(mapped, Calibrated):
                p = mapped(joint[t])
            else:  # too few events for a map of its own: its parent's holds for it
                p = torch.sigmoid(logits[:, t]) * (1 if up < 0 else found[up])
            # maps of their own could put a child above its parent
            found.append(p if up < 0 else torch.minimum(p, found[up]))
        return (*logits.unbind(1), *found)


def build_net(
    spec: FeatureSpec, model: Ranker, score_scale: float = 1.0, biases: Sequence[float] | None = None
) -> RankerNet:
    """Return the network with fresh weights, from torch's generator."""
    return RankerNet(
        spec.history_length,
        model.dim,
        len(spec.events),
        fields_width(spec, QUERY_SIDES, model.field_dim),
        fields_width(spec, ITEM_SIDES, model.field_dim),
        model.heads,
        model.hidden,
        model.cross_layers,
        model.cross_rank,
        model.dropout,
        model.attention,
        model.experts,
        [t for t, up in enumerate(parents(model.tasks)) if up < 0],
        [0.0] * len(model.tasks) if biases is None else biases,
        score_scale,
    )


def load_plain(run_dir: Path) -> PlainRanker:
    """Return the ranker of a finished run, from its best checkpoint, calibrated where the run is, in eval mode.

    Raises:
        TrainingError: no finished run of a ranker there.
    """
    run = read_run(run_dir, model="ranker")
    ranker = PlainRanker(run.spec, run.model, read_calibration(run_dir))
    load_weights(ranker, run_dir / "checkpoints" / "best.ckpt", leave_out=f"{POSITION}.")
    return ranker.eval()


def read_calibration(run_dir: Path) -> dict[str, Calibrator]:
    """Return the fitted maps of a run by task, none where it was not calibrated."""
    path = run_dir / CALIBRATION
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Calibrator]) if path.is_file() else {}
