"""The model of answers in a bundle: how likely somebody enjoys what they try.

    response.onnx            one person's arrays and those of N items -> `p_like` [N] float32, calibrated
    response/features.json   vocab/   what it reads people with: a spec of its own, over the items of the bundle
    response/tallies.json    tallies.npz   what it reads besides: sums of items up to a moment, what people's rest on

Its probability is the outcome ENJOY, which an objective may weigh beside the ranker's tasks. It stands on no rung: a
bundle carries it or not.
"""

from __future__ import annotations

from pathlib import Path

from playbill.errors import FeatureError
from playbill.features.build import SPEC_FILE, read_features, write_features
from playbill.features.spec import FeatureSpec, Side
from playbill.features.tally_file import TALLIES_JSON, TALLIES_NPZ, TallyBook, read_tallies, write_tallies
from playbill.features.vocabulary import Vocabulary

NAME = "response"  # of the graph, and of the folder beside it
ENJOY = "enjoy"
ANSWERS_FILES = tuple(f"{NAME}/{file}" for file in (SPEC_FILE, TALLIES_JSON, TALLIES_NPZ))


def write_answers(bundle: Path, spec: FeatureSpec, vocabularies: dict[str, Vocabulary], book: TallyBook) -> None:
    """Write what stands beside the graph into a bundle's folder."""
    (bundle / NAME).mkdir()
    write_features(bundle / NAME, spec, vocabularies)
    write_tallies(bundle / NAME, book)


def read_answers(bundle: Path, spec: FeatureSpec) -> tuple[FeatureSpec, dict[str, Vocabulary], TallyBook]:
    """Return what `write_answers` wrote.

    Args:
        spec: of the bundle.
    Raises:
        FeatureError: a file is missing or altered, or speaks of other items than the bundle.
    """
    own, vocabularies = read_features(bundle / NAME)
    book = read_tallies(bundle / NAME)
    if other := unlike(own, spec):
        raise FeatureError(f"{bundle / NAME}: {other} differ from the bundle's; export again")
    if len(book.items.sums) != spec.num_items + 1:
        raise FeatureError(
            f"{bundle / NAME}: tallies of {len(book.items.sums) - 1} items, the bundle has {spec.num_items}; "
            "export again"
        )
    return own, vocabularies, book


def unlike(own: FeatureSpec, spec: FeatureSpec) -> str:
    """Return in words what a spec says otherwise of items than another; empty where they agree."""
    if own.vocabularies["item"] != spec.vocabularies["item"]:
        return "items"
    mine, theirs = ({f.name: (f, s.vocabularies.get(f.array)) for f in s.side(Side.ITEM)} for s in (own, spec))
    odd = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    return f"features of items ({', '.join(odd)})" if odd else ""
