"""What can be shown: items, their creatives, and the subject lines and hero pictures of mails.

Every picture and every line stresses one pole of one aspect, so it is a unit vector with one entry of 1 or -1. An
item's creatives stress poles on which the item itself stands: they choose what to say, and do not lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.world.draws import Stream, categorical, integers, normal, uniform
from playbill.world.parameters import Parameters
from playbill.world.people import unit


@dataclass(slots=True)
class Items:
    """The items, I rows in the order in which they are published; item_id = row + 1.

    Attributes:
        aspects: [I, D] float32 unit vectors.
        category: [I] int16.
        second_category: [I] int16; -1 for none.
        appeal: [I] float32, log-odds of a click.
        quality: [I] float32, log-odds of completion.
        price: [I] float64, in the shop's currency, two decimals.
        provider: [I] int16; provider 0 has the most items.
        published_day: [I] int32, not falling; 0: there from the start.
        attraction: [I] float64, sums to 1: how often people find it by themselves, before any feedback.
        hype: [I] float32, standardised log attraction.
    """

    aspects: np.ndarray
    category: np.ndarray
    second_category: np.ndarray
    appeal: np.ndarray
    quality: np.ndarray
    price: np.ndarray
    provider: np.ndarray
    published_day: np.ndarray
    attraction: np.ndarray
    hype: np.ndarray


@dataclass(slots=True)
class Creatives:
    """The items' artworks, C rows; creative_id = row + 1.

    Attributes:
        item: [C] int32 row of the item, not falling.
        first: [I + 1] int64: creatives of item i are rows first[i] up to first[i + 1].
        title: [C, D] float32 unit vectors, what the title stresses.
        image: [C, D] float32 unit vectors, what the image stresses.
        pull: [C] float32, own log-odds of a click, the same for everybody.
    """

    item: np.ndarray
    first: np.ndarray
    title: np.ndarray
    image: np.ndarray
    pull: np.ndarray


@dataclass(slots=True)
class Subjects:
    """Subject lines of mails, S rows.

    Attributes:
        title: [S, D] float32 unit vectors, what the line stresses.
        pull: [S] float32, own log-odds of an opening.
    """

    title: np.ndarray
    pull: np.ndarray


@dataclass(slots=True)
class Heroes:
    """Hero pictures of mails, H rows.

    Attributes:
        image: [H, D] float32 unit vectors, what the picture stresses.
        pull: [H] float32, own log-odds of a click after opening.
    """

    image: np.ndarray
    pull: np.ndarray


def category_centres(parameters: Parameters, seed: int) -> np.ndarray:
    """Return [categories, D] float64 unit vectors around which items lie."""
    shape = parameters.catalogue.categories, parameters.population.aspects
    return unit(normal(seed, Stream.CATEGORY_CENTRE, np.arange(shape[0])[:, None], np.arange(shape[1])))


def category_curves(parameters: Parameters, seed: int) -> np.ndarray:
    """Return [categories, 24] float32: each category's hours of the day, mean 0 and standard deviation 1 a row."""
    peak = uniform(seed, Stream.CATEGORY_PEAK, np.arange(parameters.catalogue.categories))[:, None]
    result: np.ndarray = (np.sqrt(2) * np.cos(2 * np.pi * (np.arange(24) / 24 - peak))).astype(np.float32)
    return result


def build_items(parameters: Parameters, items: int, days: int, centres: np.ndarray, seed: int) -> Items:
    """Draw `items` items over `days` days around the category centres [categories, D]."""
    catalogue, aspects = parameters.catalogue, parameters.population.aspects
    rows = np.arange(items)
    categories = len(centres)
    category = integers(categories, seed, Stream.CATEGORY, rows)
    second = (category + 1 + integers(max(categories - 1, 1), seed, Stream.SECOND_CATEGORY, rows)) % categories
    has_second = uniform(seed, Stream.HAS_SECOND_CATEGORY, rows) < catalogue.second_category_share
    has_second &= second != category
    own = normal(seed, Stream.ASPECTS, rows[:, None], np.arange(aspects)) / np.sqrt(aspects)
    middle = centres[category] + np.where(has_second, 0.5, 0.0)[:, None] * centres[second]
    appeal = normal(seed, Stream.APPEAL, rows)
    # the place in popularity follows appeal as far as the parameters say, the rest is luck
    luck = normal(seed, Stream.POPULARITY_RANK, rows)
    popular = catalogue.popularity_appeal * appeal + np.sqrt(1 - catalogue.popularity_appeal**2) * luck
    place = np.empty(items)
    place[np.argsort(-popular, kind="stable")] = np.arange(1, items + 1)
    log_attraction = -catalogue.popularity_exponent * np.log(place + catalogue.popularity_offset * items)
    attraction = np.exp(log_attraction)
    spread = log_attraction.std()
    new = uniform(seed, Stream.NEW, rows) < catalogue.new_share
    published = np.where(new, 1 + integers(max(days - 1, 1), seed, Stream.PUBLISHED, rows), 0)
    price = np.round(catalogue.price_median * np.exp(catalogue.price_sd * normal(seed, Stream.PRICE, rows)), 2)
    return Items(
        aspects=unit(middle + catalogue.aspect_spread * own).astype(np.float32),
        category=category.astype(np.int16),
        second_category=np.where(has_second, second, -1).astype(np.int16),
        appeal=(catalogue.appeal_sd * appeal).astype(np.float32),
        quality=(catalogue.quality_sd * normal(seed, Stream.QUALITY, rows)).astype(np.float32),
        price=np.maximum(price, 0.01),
        provider=categorical(1 / np.arange(1, catalogue.providers + 1), seed, Stream.PROVIDER, rows).astype(np.int16),
        # rows are independent draws, so sorting one column changes nothing, and "there on day d" becomes a prefix
        published_day=np.sort(published).astype(np.int32),
        attraction=attraction / attraction.sum(),
        hype=((log_attraction - log_attraction.mean()) / (spread if spread > 0 else 1)).astype(np.float32),
    )


def build_creatives(parameters: Parameters, items: Items, seed: int) -> Creatives:
    """Draw the artworks of all items."""
    catalogue = parameters.catalogue
    choices = catalogue.creatives_max - catalogue.creatives_min + 1
    count = catalogue.creatives_min + integers(choices, seed, Stream.CREATIVE_COUNT, np.arange(len(items.category)))
    first = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    item = np.repeat(np.arange(len(count)), count)
    rows = np.arange(len(item))
    return Creatives(
        item=item.astype(np.int32),
        first=first,
        title=_stressed(items.aspects[item], uniform(seed, Stream.TITLE_ASPECT, rows)),
        image=_stressed(items.aspects[item], uniform(seed, Stream.IMAGE_ASPECT, rows)),
        pull=(catalogue.pull_sd * normal(seed, Stream.PULL, rows)).astype(np.float32),
    )


def build_subjects(parameters: Parameters, seed: int) -> Subjects:
    """Return the subject lines."""
    count = parameters.catalogue.subjects
    pull = parameters.catalogue.pull_sd * normal(seed, Stream.SUBJECT_PULL, np.arange(count))
    return Subjects(title=_round_the_poles(count, parameters.population.aspects), pull=pull.astype(np.float32))


def build_heroes(parameters: Parameters, seed: int) -> Heroes:
    """Return the hero pictures."""
    count = parameters.catalogue.heroes
    pull = parameters.catalogue.pull_sd * normal(seed, Stream.HERO_PULL, np.arange(count))
    return Heroes(image=_round_the_poles(count, parameters.population.aspects), pull=pull.astype(np.float32))


def _round_the_poles(count: int, aspects: int) -> np.ndarray:
    """Return [count, aspects] float32: one pole a row, each as often as the others."""
    rows = np.arange(count)
    vectors = np.zeros((count, aspects), np.float32)
    vectors[rows, rows % aspects] = np.where(rows // aspects % 2 == 0, 1.0, -1.0)
    return vectors


def _stressed(own: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return one pole a row: the aspect at random, half by how much the item has of it, its sign the item's.

    Args:
        own: [C, D] float32 unit vectors of the items.
        drawn: [C] float64 in (0, 1).
    """
    weights = 0.5 * own.astype(np.float64) ** 2 + 0.5 / own.shape[1]
    edges = np.cumsum(weights, axis=1)
    axis = np.minimum(np.sum(edges < drawn[:, None] * edges[:, -1:], axis=1), own.shape[1] - 1)
    rows = np.arange(len(own))
    vectors = np.zeros_like(own)
    vectors[rows, axis] = np.where(own[rows, axis] < 0, -1, 1)
    return vectors
