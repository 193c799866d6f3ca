"""What people did in answer to slates, as rows of the events table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from playbill.world.build import World
from playbill.world.draws import key_of
from playbill.world.respond import Impressions, Responses, respond
from playbill.world.visits import Visits


def answer(world: World, come: Visits, item: np.ndarray, creative: np.ndarray) -> Responses:
    """Return what people do about their slates, [n, k]; an empty place (-1) is never clicked.

    An impression's draws depend on visit, position, item and creative: two policies that show the same get the same.
    """
    column = (slice(None), None)
    position = np.arange(item.shape[1])[None, :]
    shown = np.maximum(item, 0)
    done = respond(
        world,
        Impressions(
            person=come.person[column],
            session=come.session[column],
            item=shown,
            creative=np.maximum(creative, 0),
            position=position,
            hour=come.hour[column],
            device=come.device[column],
            day=come.day,
            at_us=come.at_us[column],
            key=key_of(come.key[column], position, shown, np.maximum(creative, 0)),
        ),
    )
    done.clicked = done.clicked & (item >= 0)
    return done


def events_of(
    world: World, come: Visits, item: np.ndarray, creative: np.ndarray, done: Responses, first_id: int
) -> pa.Table:
    """Return the events of one day's slates, ordered by time, numbered from `first_id`.

    Returns:
        columns event_id, user_id, session_id, event, at, item_id, creative_id, value, device; people who never log in
        have a session_id alone.
    """
    row, place = np.nonzero(done.clicked)
    completion = done.completion[row, place].astype(np.float64)
    stars = done.stars[row, place].astype(np.float64)
    bought = done.bought[row, place]
    every = np.arange(len(row))
    price = world.items.price[item[row, place]]
    parts = [
        ("click", every, done.click_delay_us, np.full(len(row), np.nan)),
        ("play", every, done.play_delay_us, completion),
        ("rate", every[~np.isnan(stars)], done.stars_delay_us, stars),
        ("purchase", every[bought], done.purchase_delay_us, price),
    ]
    names, at, of, value = [], [], [], []
    for name, rows, delay, values in parts:
        names += [name] * len(rows)
        of.append(rows)
        at.append(come.at_us[row[rows]] + delay[row[rows], place[rows]])
        value.append(values[rows])
    source, moment, values = np.concatenate(of), np.concatenate(at), np.concatenate(value)
    order = np.argsort(moment, kind="stable")
    source, moment, values = source[order], moment[order], values[order]
    visit, position = row[source], place[source]
    person = come.person[visit]
    anonymous = world.people.anonymous[person]
    devices = np.array(list(world.parameters.clicks.device), object)
    return pa.table(
        {
            "event_id": pa.array(np.arange(first_id, first_id + len(order))),
            "user_id": pa.array(person + 1, pa.int64(), mask=anonymous),
            "session_id": pa.array(come.session[visit], pa.int64()),
            "event": pa.array(np.array(names, object)[order], pa.string()),
            "at": pa.array(moment).cast(pa.timestamp("us", tz="UTC")),
            "item_id": pa.array(item[visit, position] + 1, pa.int64()),
            "creative_id": pa.array(creative[visit, position] + 1, pa.int64()),
            "value": pa.array(values, mask=np.isnan(values)),
            "device": pa.array(devices[come.device[visit]], pa.string()),
        }
    )
