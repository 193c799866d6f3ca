"""The networks: what a title draws, what a creative draws beside the others of its item, and the features of that.

    logit(click) = title(person, item, position) + score(person, creative) - mean of score over what could be shown
    score        = <features, weights>

The second part sums to nothing over an item's creatives, so whatever makes a title popular, its place and the hour
included, belongs to the first part alone: the image's effect is learned with the title held fixed. The weights of the
last layer are what the Bayesian posterior is about (`prior.py`); features are learned once a training and exported.

The features, [M, d], d at most 32:

    likeness   one for each column of content: how much of it stands with what this person has chosen so far
               (`places.py`). It is known before any click on a creative, and of one that was never shown
    main       what the content does to everybody
    match      where person and content meet in a way that the places do not know
    own        what this creative has beyond its content, 0 for one that training did not know

A person is read as a profile, the mean of what the items of their history stand for (`profile.py`): nothing at all for
somebody of whom nothing is known, so that nobody leans anywhere by the hour or the device.

Shape legend: U people, M pairs of person and creative, N items, D width of the query tower's vectors, P width of
profiles, d width of the features.

Source: C. Riquelme, G. Tucker, J. Snoek, Deep Bayesian Bandits Showdown (2018), section 3 (NeuralLinear).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.features.creatives import CREATIVE_INDEX
from playbill.features.spec import Encoding, Field
from playbill.training.plain_embeddings import mean_of_rows


class CreativeNet(nn.Module):
    """Person and creative -> features whose weighted sum is the creative's score.

    Args:
        fields: content of a creative, in the order in which it is read.
        num_creatives: C, creatives known to training.
        contents: [N + 1, P] what items stand for in profiles, 0 for the unknown one.
        field_dim: width of the tables of tags.
        main, match: numbers of such features.
    """

    contents: Tensor

    def __init__(
        self, fields: Sequence[Field], num_creatives: int, contents: Tensor, field_dim: int, main: int, match: int
    ) -> None:
        super().__init__()
        self.fields = list(fields)
        self.tags = nn.ModuleDict({f.array: nn.Embedding(f.size, field_dim) for f in self.fields if _has_table(f)})
        width = sum(field_dim if _has_table(f) else f.width or 1 for f in self.fields)
        self.main = nn.Linear(width, main, bias=False)
        self.match = nn.Linear(width, match, bias=False)
        self.register_buffer("contents", contents, persistent=False)
        self.person = nn.Linear(contents.shape[1], match, bias=False)
        self.own = nn.Embedding(num_creatives + 1, 1)
        for f in self.fields:
            rows = f.size if _has_table(f) else f.width or 1
            # measured from the catalogue, never trained; see `places.py`
            self.register_buffer(f"place_{f.array}", torch.zeros(rows, contents.shape[1]))
        self.weight = nn.Parameter(torch.full((self.width - 1,), 0.1))
        nn.init.zeros_(self.own.weight)
        for table in self.tags.values():
            nn.init.normal_(table.weight, std=field_dim**-0.5)  # type: ignore[arg-type]  # an Embedding

    @property
    def width(self) -> int:
        """d: features of a pair."""
        return len(self.fields) + self.main.out_features + self.match.out_features + 1

    @property
    def inputs(self) -> list[str]:
        """Names of the creatives' arrays, in order."""
        return [CREATIVE_INDEX, *(f.array for f in self.fields)]

    def forward(self, person: Tensor, user: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return features [M, d].

        Args:
            person: [U, P] profiles. user: [M] int64, whose pair each is: what hangs on people alone is computed once.
            arrays: of the creatives by name, [M, ...] each.
        """
        parts, likeness = [], []
        for f in self.fields:
            raw = arrays[f.array]
            place: Tensor = getattr(self, f"place_{f.array}")
            if f.encoding is Encoding.CATEGORIES:
                parts.append(mean_of_rows(raw, self.table(f)))
            elif f.encoding is Encoding.CATEGORY:
                parts.append(functional.embedding(raw, self.table(f)))
            else:
                parts.append(raw if raw.ndim == 2 else raw.unsqueeze(-1))
            likeness.append(_likeness(f, raw if _has_table(f) else parts[-1], place, person, user))
        own = functional.embedding(arrays[CREATIVE_INDEX], self.own.weight)
        content = torch.cat(parts, -1)
        match = self.person(person).index_select(0, user) * self.match(content)
        return torch.cat([*likeness, torch.tanh(self.main(content)), match, own], -1)

    def table(self, field: Field) -> Tensor:
        """Return the table of a field of tags."""
        weight: Tensor = self.tags[field.array].weight  # type: ignore[assignment]  # an Embedding's
        return weight

    def weights(self) -> Tensor:
        """Return [d] weights of the features; what a creative has of its own counts as it is."""
        return torch.cat([self.weight, self.weight.new_ones(1)])


class TitleNet(nn.Module):
    """Person, item and position -> logit of a click whichever creative is shown. Serves training alone.

    Args:
        items: [N + 1, D] vectors of the catalogue, 0 for the unknown item.
        positions: places that have a level of their own.
        base: logit of the log's share of clicks, where training begins.
    """

    items: Tensor

    def __init__(self, items: Tensor, positions: int, base: float) -> None:
        super().__init__()
        self.register_buffer("items", items, persistent=False)
        self.item = nn.Embedding(len(items), 1)
        self.position = nn.Embedding(positions, 1)
        self.person = nn.Linear(items.shape[1], 1)
        self.scale = nn.Parameter(torch.zeros(1))
        nn.init.zeros_(self.item.weight)
        nn.init.zeros_(self.position.weight)
        nn.init.zeros_(self.person.weight)
        nn.init.constant_(self.person.bias, base)

    def forward(self, person: Tensor, item: Tensor, position: Tensor) -> Tensor:
        """Return logits [B]. Args: person [B, D], item [B] int64, position [B] int64."""
        level = self.item(item) + self.position(position.clamp(max=self.position.num_embeddings - 1))
        likeness = (person * functional.embedding(item, self.items)).sum(-1, keepdim=True)
        logit: Tensor = (level + self.person(person) + self.scale * likeness).squeeze(-1)
        return logit


def centred(score: Tensor, there: Tensor) -> Tensor:
    """Return scores [B, E] less their mean over what could be shown ([B, E] bool); 0 elsewhere."""
    weight = there.to(score.dtype)
    mean = (score * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    return (score - mean) * weight


def _likeness(field: Field, raw: Tensor, place: Tensor, person: Tensor, user: Tensor) -> Tensor:
    """Return [M, 1] products of a person and where a creative's content stands, the mean over several tags.

    Args:
        raw: [M, ...] content. place: [rows, P] of each tag, or of each number. person: [U, P]. user: [M].
    """
    near = person @ place.T
    if not _has_table(field):
        return (near.index_select(0, user) * raw).sum(-1, keepdim=True)
    tags = raw if raw.ndim == 2 else raw.unsqueeze(-1)
    there = (tags >= 0).to(near.dtype)
    at = user.unsqueeze(-1) * place.shape[0] + tags.clamp(min=0)
    found = near.reshape(-1).index_select(0, at.reshape(-1)).view(tags.shape) * there
    return found.sum(-1, keepdim=True) / there.sum(-1, keepdim=True).clamp(min=1)


def _has_table(field: Field) -> bool:
    return field.encoding in (Encoding.CATEGORY, Encoding.CATEGORIES)
