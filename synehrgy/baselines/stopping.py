"""When to stop training, and the weights to keep."""

import math
from copy import deepcopy

from torch import Tensor, nn


class BestWeights:
    """The weights of the epoch with the lowest loss on validation patients.

    Args:
        network: whose weights they are.
        patience: epochs without a lower loss before it stops.
    """

    def __init__(self, network: nn.Module, patience: int):
        self._network, self._patience = network, patience
        self._lowest, self._waited = math.inf, 0
        self._kept: dict[str, Tensor] | None = None

    def stops_at(self, loss: float) -> bool:
        """Note the loss of an epoch; whether it was the last one to wait for."""
        self._waited += 1
        if loss < self._lowest:
            self._lowest, self._waited = loss, 0
            self._kept = deepcopy(self._network.state_dict())
        return self._waited == self._patience

    def restore(self) -> None:
        """Give the network its best weights; without any loss the last ones stay."""
        if self._kept is not None:
            self._network.load_state_dict(self._kept)
