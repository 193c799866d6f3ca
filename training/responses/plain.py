"""The model of answers: tables, network, and the constants that turn histories and tallies into what it reads.

One module trains on blocks and answers padded arrays, as the exported graph does: the same weights, two ways in. The
graph takes one person with all items that are asked about, so that what they answered is read once.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from playbill.dataset.dataset import Dataset
from playbill.features.encoder import Arrays
from playbill.features.person_tallies import PAIR_NAMES, Tastes, person_names
from playbill.features.tallies import TallySpec
from playbill.features.tally_file import read_tallies
from playbill.measure.calibration import Calibrator
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, PlainEncoder, fields_width
from playbill.training.ranking.plain import CALIBRATION, Calibrated
from playbill.training.response_settings import Response
from playbill.training.responses.blocks import Block
from playbill.training.responses.network import Answers, ResponseNet
from playbill.training.retrieval.plain import item_inputs, query_inputs
from playbill.training.runs import Run, load_weights

TALLIES = ("item_tallies", "person_tallies", "pair_tallies")
_CUT = 6.0  # standardised tallies are cut to +-this


class PlainResponse(nn.Module):
    """Earlier answers, an item and tallies -> probability that the answer will be a like.

    Args:
        dataset: gives the spec, and the content of the catalogue that histories are read with.
        spec, tastes: of the tallies.
        model: sizes.

    Attributes:
        inputs: names of the arrays that `forward` reads, in order.
        outputs: names of what it returns.
        widths: columns of the tallies of items, people and pairs.
    """

    base: Tensor
    middle: Tensor
    scale: Tensor
    read: Tensor

    def __init__(self, dataset: Dataset, spec: TallySpec, tastes: Tastes, model: Response) -> None:
        super().__init__()
        features = dataset.spec
        self.spec, self.items = spec, dataset.item_arrays
        self.encoder = PlainEncoder(features, model.dim, model.field_dim)
        nn.init.normal_(self.encoder.items.weight("item"), std=0.05)
        widths = [len(spec.item_names), len(person_names(spec)), len(PAIR_NAMES)]
        self.net = ResponseNet(
            model.dim,
            fields_width(features, ITEM_SIDES, model.field_dim),
            sum(widths) + fields_width(features, QUERY_SIDES, model.field_dim),
            1 + len(model.beside),
            model.heads,
            model.hidden,
            model.cross_layers,
            model.cross_rank,
            model.dropout,
        )
        self.widths = widths
        self.register_buffer("base", torch.from_numpy(tastes.base))
        self.register_buffer("middle", torch.zeros(sum(widths)))
        self.register_buffer("scale", torch.ones(sum(widths)))
        self.register_buffer("read", torch.zeros(0), persistent=False)
        queries = [name for name in query_inputs(features) if name != "history_event"]
        self.inputs = [*queries, *item_inputs(features), *TALLIES]
        self.outputs = ["logit_like", "p_like"]
        self.calibrated: Calibrated | None = None

    def standardise(self, tallies: np.ndarray) -> None:
        """Take middle and scale of the tallies from rows that teach, [n, F]."""
        self.middle.copy_(torch.from_numpy(tallies.mean(0)))
        self.scale.copy_(torch.from_numpy(1 / (tallies.std(0) + 1e-6)))

    @torch.no_grad()
    def finish(self, fitted: Calibrator | None = None) -> None:
        """Fix what histories read of the catalogue, once weights change no more; `forward` needs it.

        Args:
            fitted: map that makes probabilities true; None leaves them as they are.
        """
        self.calibrated = None if fitted is None else Calibrated(fitted)
        self.eval()
        every = torch.arange(self.encoder.spec.num_items + 1)
        self.read = self._item({"item_index": every} | _rows(self.items, every))

    def of_block(self, block: Block) -> Tensor:
        """Return logits [B, Q, levels] of a block."""
        index, place = torch.unique(torch.cat([block.key_item.flatten(), block.item.flatten()]), return_inverse=True)
        vectors = self._item({"item_index": index} | _rows(self.items, index))
        key = vectors[place[: block.key_item.numel()].view(block.key_item.shape)]
        item = vectors[place[block.key_item.numel() :].view(block.item.shape)]
        fields = self.encoder.fields(block.fields, QUERY_SIDES)
        own = self._standard(block.tallies)
        numbers = own if fields is None else torch.cat([own, fields.view(*block.item.shape, -1)], -1)
        answers = self._answers(key, block.key_value, block.key_item)
        logits: Tensor = self.net(answers, item, block.there, block.hours, block.places, numbers)
        return logits

    def forward(self, arrays: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logit_like, p_like, [N] float32 each: N items that one person is asked about.

        Args:
            arrays: query-side arrays [1, ...], item_index [N] int64 and item fields [N, ...], item_tallies [N, K],
                person_tallies [1, K'], pair_tallies [N, 6] float32, by name.
        """
        history = arrays["history_item"]
        index = history.clamp(min=0)
        answers = self._answers(self.read[index], arrays["history_value"], index)
        age = arrays["history_age"]
        hours = age + torch.log(24 - 23 * torch.exp(-age))  # log(1 + 24 days) of log(1 + days), finite however old
        places = torch.log1p(torch.arange(history.shape[1], dtype=torch.float32)).unsqueeze(0)
        item = self._item(arrays)
        person = arrays["person_tallies"].expand(len(item), -1)
        numbers = [self._standard(torch.cat([arrays["item_tallies"], person, arrays["pair_tallies"]], -1))]
        fields = self.encoder.fields(arrays, QUERY_SIDES)
        if fields is not None:
            numbers.append(fields.expand(len(item), -1))
        there, hours, places = (x.unsqueeze(1) for x in (history >= 0, hours, places))
        logit = self.net(answers, item.unsqueeze(0), there, hours, places, torch.cat(numbers, -1).unsqueeze(0))[0, :, 0]
        return logit, torch.sigmoid(logit) if self.calibrated is None else self.calibrated(logit)

    def _item(self, arrays: dict[str, Tensor]) -> Tensor:
        vectors: Tensor = self.net.item(self.encoder.item(arrays), self.encoder.fields(arrays, ITEM_SIDES))
        return vectors

    def _answers(self, key: Tensor, value: Tensor, index: Tensor) -> Answers:
        like = (value >= self.spec.like_at).to(key.dtype)
        answers: Answers = self.net.answers(key, value, like, value - self.spec.mean - self.base[index])
        return answers

    def _standard(self, tallies: Tensor) -> Tensor:
        return ((tallies - self.middle) * self.scale).clamp(-_CUT, _CUT)


def load_plain(run: Run, dataset: Dataset) -> PlainResponse:
    """Return the model of a finished run, from its best checkpoint, calibrated where the run is.

    Args:
        dataset: of the run's features.
    """
    book = read_tallies(run.path)
    whole = PlainResponse(dataset, book.items.spec, book.tastes, run.model)
    load_weights(whole, run.path / "checkpoints" / "best.ckpt")
    file = run.path / CALIBRATION
    whole.finish(msgspec.json.decode(file.read_bytes(), type=Calibrator) if file.is_file() else None)
    return whole


def _rows(arrays: Arrays, index: Tensor) -> dict[str, Any]:
    rows = index.numpy()
    return {name: torch.from_numpy(np.ascontiguousarray(array[rows])) for name, array in arrays.items()}
