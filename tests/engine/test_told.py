"""What of a context the slate log keeps of people under whose id nothing may be kept."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.baselines.near import FILE, Near, write_near
from playbill.bundle.open import Bundle
from playbill.engine.told import Told, told_by
from playbill.features.spec import Encoding, Field, Side
from playbill.features.vocabulary import Vocabulary


@pytest.fixture
def told(bundle: Bundle, tmp_path: Path) -> Told:
    """Of the bundle, had it been trained on three columns of the moment and known what is trending by place."""
    path = shutil.copytree(bundle.path, tmp_path / "bundle")
    one = np.ones(1)
    write_near(path / FILE, Near("city", {"Wien": 0}, np.array([0, 1]), one.astype(np.int64), one.astype(np.float32)))
    new = [
        Field(name="device", side=Side.CONTEXT, encoding=Encoding.CATEGORY, size=3),
        Field(name="degrees", side=Side.CONTEXT, encoding=Encoding.NUMBER),
    ]
    spec = msgspec.structs.replace(bundle.spec, fields=[*bundle.spec.fields, *new])
    words = {**bundle.vocabularies, "context_device": Vocabulary(["phone", "tv"])}
    return told_by(dataclasses.replace(bundle, path=path, spec=spec, vocabularies=words))


def test_what_is_said_in_the_bundles_words_is_kept(told: Told) -> None:
    known = {"device": "tv", "degrees": 21.5, "city": "Wien", "locale": "de-AT"}
    assert told(known) == (known, False)


def test_what_acts_as_if_nothing_was_said_goes_without_a_loss(told: Told) -> None:
    said = {"device": "anna@example.org", "hour": "anna", "city": "Anna's house", "anna": 1, "degrees": None}
    assert told(said) == ({}, False)


@pytest.mark.parametrize("said", [{"locale": "anna-maria"}, {"degrees": "21.5"}])
def test_what_acts_and_may_be_anything_goes_and_is_said_to_be_missing(told: Told, said: dict[str, object]) -> None:
    assert told({**said, "device": "tv"}) == ({"device": "tv"}, True)
