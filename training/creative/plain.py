"""The trained heads as a plain module: histories, people's vectors and the creatives' arrays in, features out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.bundle.creatives import ARRAYS, PRIOR, QUERY, SPEC, VOCABULARIES, CreativeSpec
from playbill.bundle.verify import read_arrays
from playbill.creative.posterior import Posterior
from playbill.errors import TrainingError
from playbill.features.creatives import CREATIVE_INDEX
from playbill.features.encoder import Arrays
from playbill.features.vocabulary import Vocabulary, read_vocabularies
from playbill.training.creative.data import CreativeData
from playbill.training.creative.module import CreativeModel
from playbill.training.creative.network import CreativeNet, TitleNet
from playbill.training.creative.people import catalogue_vectors
from playbill.training.creative.profile import profile
from playbill.training.creative_settings import Creative
from playbill.training.retrieval.plain import load_plain
from playbill.training.runs import load_weights, read_run
from playbill.training.settings import TrainSettings

HISTORY = "history_item"
_LEVELS = "levels.npz"


class PlainCreativeHead(nn.Module):
    """U people once, M pairs of person and creative broadcast from them -> features [M, d], title's logit [M].

    People come as their histories, which the heads read, and as the vectors that the bundle's query tower gives, which
    the title reads: whoever asks has both from retrieval already. Of several runs side by side in that tower the first
    is the heads' own. The title's logit is that of the first position.

    Attributes:
        width: columns of the heads' own run.
        inputs: names of the arrays that `forward` reads, in order.
        outputs: names of what it returns, in order.
    """

    def __init__(self, head: CreativeNet, title: TitleNet) -> None:
        super().__init__()
        self.head, self.title = head, title
        self.width = title.items.shape[1]
        self.inputs = [HISTORY, QUERY, "cand_user", "item_index", *head.inputs]
        self.outputs = ["phi", "title_logit"]

    def forward(self, arrays: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return phi [M, d] and title_logit [M], float32 each.

        Args:
            arrays: history_item [U, L] int64, query [U, width of the query tower] float32, cand_user, item_index and
                creative_index [M] int64, and the creatives' fields [M, ...], by name.
        """
        # beside other runs the own vector is a part of the unit, and the heads know it whole
        own = functional.normalize(arrays[QUERY][:, : self.width], dim=-1)
        person = own.index_select(0, arrays["cand_user"])
        item = arrays["item_index"]
        # items that came after the export stand behind the catalogue, and the title knows nothing of them
        item = torch.where(item < self.title.items.shape[0], item, torch.zeros_like(item))
        read = profile(arrays[HISTORY], self.head.contents)
        return self.head(read, arrays["cand_user"], arrays), self.title(person, item, torch.zeros_like(item))


class HeadFiles(msgspec.Struct, frozen=True):
    """What a run leaves beside its weights; vocabularies and arrays by array name."""

    spec: CreativeSpec
    vocabularies: dict[str, Vocabulary]
    arrays: dict[str, np.ndarray]
    prior: Posterior


def load_trained(data: CreativeData, settings: TrainSettings, checkpoint: Path) -> CreativeModel:
    """Return the model of a checkpoint, in eval mode."""
    model = CreativeModel(data, settings)
    load_weights(model, checkpoint)
    return model.eval()


def write_levels(run_dir: Path, model: CreativeModel) -> None:
    """Write what `prior.settle` set after the best checkpoint, levels and how people are read, and items' contents."""
    own, title = (weight.detach()[:, 0].numpy() for weight in (model.head.own.weight, model.title.item.weight))
    person, contents = model.head.person.weight.detach().numpy(), model.head.contents.numpy()
    np.savez(run_dir / _LEVELS, own=own, title=title, person=person, contents=contents)


def read_head(run_dir: Path) -> HeadFiles:
    """Return what `train` wrote beside the weights.

    Raises:
        TrainingError: it is missing or of another training.
    """
    try:
        spec = msgspec.json.decode((run_dir / SPEC).read_bytes(), type=CreativeSpec)
    except (OSError, msgspec.MsgspecError) as error:
        raise TrainingError(f"{run_dir / SPEC} cannot be read ({error}); train model=creative again") from error
    found = read_arrays(run_dir / PRIOR)
    prior = Posterior(found["mean"], found["precision"], float(found["noise"]))
    vocabularies = read_vocabularies(run_dir / VOCABULARIES, spec.vocabularies)
    return HeadFiles(spec, vocabularies, read_arrays(run_dir / ARRAYS), prior)


def load_plain_head(run_dir: Path, retrieval: Path, items: Arrays) -> PlainCreativeHead:
    """Return the heads of a finished run, from their best checkpoint, in eval mode.

    Args:
        run_dir: of the run; retrieval: of the run whose towers it read.
        items: item-side arrays of the dataset, [N + 1, ...] each.
    Raises:
        TrainingError: no finished run of creative heads there, or one of an earlier version.
    """
    run = read_run(run_dir, model="creative")
    model: Creative = run.model
    files = read_head(run_dir)
    tower, item_tower = load_plain([retrieval], items)
    vectors = catalogue_vectors(item_tower, tower, items, run.spec.num_items)
    levels = read_arrays(run_dir / _LEVELS) if (run_dir / _LEVELS).is_file() else {}
    if "contents" not in levels:
        raise TrainingError(f"{run_dir} was written by an earlier version; train model=creative again")
    num_creatives, contents = len(files.arrays[CREATIVE_INDEX]) - 1, torch.from_numpy(levels["contents"])
    head = CreativeNet(files.spec.fields, num_creatives, contents, model.field_dim, model.main, model.match)
    title = TitleNet(vectors, model.max_positions, 0.0)
    load_weights(nn.ModuleDict({"head": head, "title": title}), run_dir / "checkpoints" / "best.ckpt")
    with torch.no_grad():
        head.own.weight.copy_(torch.from_numpy(levels["own"])[:, None])
        title.item.weight.copy_(torch.from_numpy(levels["title"])[:, None])
        head.person.weight.copy_(torch.from_numpy(levels["person"]))
    return PlainCreativeHead(head, title).eval()
