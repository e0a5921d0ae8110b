"""What training may stop changing."""

from __future__ import annotations

import torch
from torch import nn


class Freezable(nn.Module):
    """A module with statistics that follow the data, until they are frozen.

    Attributes:
        frozen: Whether they stay as they are. Kept in the ``state_dict``.
    """

    frozen = False

    def get_extra_state(self) -> torch.Tensor:
        """The flag as a tensor, which any way of saving takes."""
        return torch.tensor(self.frozen)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Takes what :meth:`get_extra_state` gave."""
        self.frozen = bool(state)
