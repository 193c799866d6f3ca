"""blend.json there and back, and refused where a number or a name in it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from playbill.blend.lists import from_arrays
from playbill.blend.model import Blend, apply, read_blend, write_blend
from playbill.errors import BlendError

BLEND = Blend(
    name="b",
    members=["tower", "ease"],
    depth=20,
    features=["rank"],
    weights={"tower": {"rank": 1.0}, "ease": {"rank": 0.5}},
)


def test_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "blend.json").write_bytes(write_blend(BLEND))
    assert read_blend(tmp_path / "blend.json") == BLEND


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"format_version": 3}, "format 3, this Playbill reads 2"),
        ({"members": []}, "members must be different names"),
        ({"members": ["ease", "ease"]}, "members must be different names"),
        ({"features": ["magic"]}, "features must be different ones of standard, share, rank"),
        ({"depth": 0}, "depth must be >= 1, got 0"),
        ({"weights": {"sasrec": {"rank": 1.0}}}, r"weights\.sasrec\.rank is of no member"),
        ({"weights": {"ease": {"rank": None}}}, "is no blend: "),
        ({"secret": 1}, "is no blend: .*secret"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    file = tmp_path / "blend.json"
    file.write_bytes(msgspec.json.encode(msgspec.to_builtins(BLEND) | changed))
    with pytest.raises(BlendError, match=told) as error:
        read_blend(file)
    assert str(file) in str(error.value)


def test_a_weight_that_is_no_number_is_never_written() -> None:
    broken = msgspec.structs.replace(BLEND, weights={"ease": {"rank": float("nan")}})
    with pytest.raises(BlendError, match=r"weights\.ease\.rank is nan, expected a number"):
        write_blend(broken)


def test_a_missing_file_and_missing_lists_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BlendError, match="write one with `playbill blend`"):
        read_blend(tmp_path / "blend.json")
    lists = {"tower": from_arrays([np.array([1])], [np.array([1.0])])}
    with pytest.raises(BlendError, match="blend b needs lists of ease; there are: tower"):
        apply(BLEND, lists, 5)
