"""Dropout by bytes: the share that was asked for, the mean kept, the same draw for the same seed."""

from __future__ import annotations

import pytest
import torch

from playbill.training.retrieval.dropout import dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_share_and_mean(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.ones(300, 997, dtype=dtype)
    dropped = dropout(x, share, True)
    gone = (dropped == 0).float()
    assert gone.mean().item() == pytest.approx(share, abs=0.004)
    assert dropped.float().mean().item() == pytest.approx(1, abs=0.006)
    # no column and no row is spared or hit more often than chance would
    assert (gone.mean(0) - share).abs().max() < 6 * (share * (1 - share) / 300) ** 0.5
    assert (gone.mean(1) - share).abs().max() < 6 * (share * (1 - share) / 997) ** 0.5


def test_the_seed_decides_and_validation_drops_nothing() -> None:
    x = torch.randn(7, 9)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(dropout(x, 0.3, True))
    assert torch.equal(*drawn) and not torch.equal(drawn[0], dropout(x, 0.3, True))
    assert dropout(x, 0.3, False) is x and dropout(x, 0.0, True) is x
