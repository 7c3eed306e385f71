"""Adam (Kingma and Ba, 2015)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Adam:
    """Moves one array of weights, in place and in its own precision. β₁ = 0.9, β₂ = 0.99, ε = 1e-8."""

    def __init__(self, weights: NDArray[Any]) -> None:
        self._weights = weights
        self._mean, self._square = np.zeros_like(weights), np.zeros_like(weights)
        self._steps = 0

    def step(self, gradient: NDArray[Any], rate: float) -> None:
        """One step against the gradient."""
        self._steps += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.99 * self._square + 0.01 * gradient**2
        size = np.sqrt(self._square / (1 - 0.99**self._steps)) + 1e-8
        self._weights -= rate * self._mean / (1 - 0.9**self._steps) / size
