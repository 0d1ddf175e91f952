"""Learning rates that change at given epochs, as the notes of the original program list them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from alexnet_tf import options


@dataclasses.dataclass(frozen=True)
class Phase:
    """The learning rates from an epoch on.

    Attributes:
        start: the epoch, counted from 1; 1.25 is after a quarter of the first epoch.
        weights, biases: rates of all layers that `layers` does not name.
        layers: other rates, by layer ("conv1") or by the kernels or biases of a layer ("conv1/kernel", "fc8/bias").
    """

    start: float
    weights: float
    biases: float
    layers: dict[str, float]

    def multipliers(self) -> dict[str, float]:
        """The rates as multiples of `weights`, for `PaperMomentum.set_rate_multipliers`."""
        own = {}
        for name, rate in self.layers.items():
            layer, _, kind = name.partition("/")
            for each in [kind] if kind else ["kernel", "bias"]:
                own[f"{layer}/{each}"] = rate / (self.biases if each == "bias" else self.weights)
        return {"bias": self.biases / self.weights} | own


def parse_phases(lines: Sequence[str]) -> tuple[Phase, ...]:
    """Parses the values of --phase, such as "25 weights=0.001 biases=0.02 conv1/kernel=0".

    Raises:
        ValueError: if a value has another form, the first phase does not start with epoch 1, the phases are not in
            order, or a rate of all weights or biases is not above 0.
    """
    phases = []
    for line in lines:
        start, *items = line.split()
        rates = options.parse_numbers_by_name("phase", items)
        weights = rates.pop("weights", 0.0)
        biases = rates.pop("biases", weights)
        try:
            phases.append(Phase(float(start), weights, biases, rates))
        except ValueError as error:
            raise ValueError(
                f"`phase` must begin with an epoch, such as 25 weights=0.001. Received: {line!r}"
            ) from error
        if not (weights > 0 and biases > 0 and min(rates.values(), default=0) >= 0):
            raise ValueError(
                "`phase` needs rates above 0 for weights and biases (for layers they may be 0), such as 25 "
                f"weights=0.001 biases=0.02 conv1=0. Received: {line!r}"
            )
    starts = [phase.start for phase in phases]
    if starts[:1] != [1] or starts != sorted(set(starts)):
        raise ValueError(f"The phases must begin with epoch 1 and be in order. Received: {starts}")
    return tuple(phases)


def phase_at(phases: Sequence[Phase], epoch: float) -> Phase:
    """The phase of an epoch, counted from 1, with its completed fraction."""
    return max((phase for phase in phases if phase.start <= epoch), key=lambda phase: phase.start)
