"""Build a world: everything about people, items and pictures that the responses depend on, from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from playbill.world.items import (
    Creatives,
    Heroes,
    Items,
    Subjects,
    build_creatives,
    build_heroes,
    build_items,
    build_subjects,
    category_centres,
    category_curves,
)
from playbill.world.parameters import Parameters
from playbill.world.people import People, build_people, build_rhythms
from playbill.world.settings import Size

# what functions of the world take for people, items, positions, hours or days: one number, or an array of them
Rows = np.ndarray | np.integer | int


@dataclass(slots=True)
class World:
    """A world whose truth is known.

    Attributes:
        parameters: numbers of the response model.
        size: how large, and how many days.
        seed: of every draw.
        people: P rows.
        items: I rows.
        creatives: C rows, artworks of items.
        subjects: S rows, subject lines of mails.
        heroes: H rows, hero pictures of mails.
        rhythms: [R, 168] float32, by local hour of week, mean 1 a row.
        category_hours: [categories, 24] float32, by local hour, mean 0, standard deviation 1 a row.
        click_vectors: [C, D] float32 and
        click_base: [C] float32: a click's log-odds on creative c are <taste, click_vectors[c]> + click_base[c], before
            hour and device. Follows from the rest; kept because every impression needs it.
    """

    parameters: Parameters
    size: Size
    seed: int
    people: People
    items: Items
    creatives: Creatives
    subjects: Subjects
    heroes: Heroes
    rhythms: np.ndarray
    category_hours: np.ndarray
    click_vectors: np.ndarray = field(init=False)
    click_base: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        clicks, switches, creatives = self.parameters.clicks, self.parameters.switches, self.creatives
        parts = [
            (switches.taste, clicks.taste, self.items.aspects[creatives.item]),
            (switches.title, clicks.title_taste, creatives.title),
            (switches.image, clicks.image_taste, creatives.image),
        ]
        self.click_vectors = np.zeros_like(creatives.title)
        for on, weight, vectors in parts:
            if on:
                self.click_vectors += np.float32(weight) * vectors
        self.click_base = np.float32(clicks.base) + self.items.appeal[creatives.item] + creatives.pull


def build(parameters: Parameters, size: Size, seed: int) -> World:
    """Return the world of these parameters, size and seed; the same arguments give the same arrays, bit for bit.

    Raises:
        WorldError: the parameters name something that is not there, such as an unknown timezone.
    """
    centres = category_centres(parameters, seed)
    items = build_items(parameters, size.items, size.days, centres, seed)
    return World(
        parameters=parameters,
        size=size,
        seed=seed,
        people=build_people(parameters, size.people, size.activity, centres, seed),
        items=items,
        creatives=build_creatives(parameters, items, seed),
        subjects=build_subjects(parameters, seed),
        heroes=build_heroes(parameters, seed),
        rhythms=build_rhythms(parameters, seed),
        category_hours=category_curves(parameters, seed),
    )


def items_there(world: World, day: int) -> int:
    """Return how many items are published on a day: they are the first rows of the catalogue."""
    return int(np.searchsorted(world.items.published_day, day, side="right"))
