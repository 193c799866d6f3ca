"""A fitted calibrator inside the exported graph: the same map as `measure.calibration.Calibrator`, as constants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from playbill.measure.calibration import Calibrator


class CalibratedLogits(nn.Module):
    """Maps the logits of one task to calibrated ones; see `Calibrator` for the numbers."""

    def __init__(self, calibrator: Calibrator) -> None:
        super().__init__()
        self.bias, self.slope = calibrator.bias, calibrator.slope
        # buffers that no checkpoint holds: they are fitted after training
        self.register_buffer("knots", torch.tensor(calibrator.knots, dtype=torch.float32), persistent=False)
        self.register_buffer("changes", torch.tensor(calibrator.changes, dtype=torch.float32), persistent=False)
        self.knots: Tensor
        self.changes: Tensor

    def forward(self, logit: Tensor) -> Tensor:
        """Return [N] float32. Args: logit: [N] float32."""
        mapped = self.bias + self.slope * logit
        if len(self.knots):
            mapped = mapped + (torch.relu(logit.unsqueeze(-1) - self.knots) * self.changes).sum(-1)
        return mapped
