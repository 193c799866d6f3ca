"""The trained ranker as a plain module: padded arrays in, logits and probabilities out. What export and tests use."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from playbill.features.spec import FeatureSpec
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, PlainEncoder, fields_width
from playbill.training.ranking.network import RankerNet
from playbill.training.retrieval.plain import item_inputs, query_inputs
from playbill.training.runs import load_weights, read_run
from playbill.training.settings import Ranker


class PlainRanker(nn.Module):
    """U users once, N candidates broadcast from them -> logits and probabilities of both tasks.

    `p_interact` is the probability under the negatives it was trained with (see `ranking.sampling`): it orders
    candidates and compares between people, but is no share of shown items that will be clicked.

    Only what was interacted with can have been liked, so `logit_like` speaks of those; `p_like` is the probability of
    both, over all candidates, which is what an objective may add to `p_interact`.

    Source: X. Ma et al., Entire Space Multi-Task Model (2018), equation 1.

    Attributes:
        inputs: names of the arrays that `forward` reads, in order.
        outputs: names of what it returns, in order.
    """

    def __init__(self, spec: FeatureSpec, model: Ranker) -> None:
        super().__init__()
        self.encoder = PlainEncoder(spec, model.dim, model.field_dim)
        self.net = build_net(spec, model)
        self.inputs = [*query_inputs(spec), "cand_user", *item_inputs(spec), "retrieval_score"]
        self.outputs = ["logit_interact", "logit_like", "p_interact", "p_like"]

    def forward(self, arrays: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logit_interact, logit_like, p_interact, p_like, [N] float32 each.

        Args:
            arrays: query-side arrays [U, ...], cand_user [N] int64, item_index [N] int64 and item fields [N, ...],
                retrieval_score [N] float32, by name.
        """
        interact, like, _ = self.net(
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
        p_interact = torch.sigmoid(interact)
        return interact, like, p_interact, p_interact * torch.sigmoid(like)


def build_net(spec: FeatureSpec, model: Ranker, score_scale: float = 1.0, score_bias: float = 0.0) -> RankerNet:
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
        score_scale,
        score_bias,
    )


def load_plain(run_dir: Path) -> PlainRanker:
    """Return the ranker of a finished run, from its best checkpoint, in eval mode.

    Raises:
        TrainingError: no finished run of a ranker there.
    """
    run = read_run(run_dir, model="ranker")
    ranker = PlainRanker(run.spec, run.model)
    load_weights(ranker, run_dir / "checkpoints" / "best.ckpt")
    return ranker.eval()
