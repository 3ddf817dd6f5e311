"""Which tensors cross which links, as sums over a program's unknowns."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.partition.codings import Shares
from pipeline.partition.program import Program
from pipeline.partition.steps import Expression
from pipeline.placement import Tier


@dataclass
class Crossings:
    """Of a program; with `is_peaked`, sums may be used where it would pay to have them too small."""

    program: Program
    is_peaked: bool = False
    _reach: dict[tuple[Tier, int], Expression] = field(init=False, default_factory=dict)
    _whole: dict[int, Expression] = field(init=False, default_factory=dict)

    def sum(self, shares: Shares) -> Expression:
        """The shares of all tensors that cross, and of outputs that come back."""
        steps, total = self.program.steps, dict[int, float]()
        returned = zip(steps.graph.results, shares.returned.below, shares.returned.above, strict=False)
        for tensor, below, above in returned:
            producer = steps.graph.producer[tensor]
            for lower, share in ((Tier.DEVICE, float(below)), (Tier.EDGE, float(above))):
                self._add(total, {steps.passed(lower, producer): 1.0}, share)
        for tensor, readers in enumerate(steps.graph.consumers):
            if not readers:
                continue
            for lower, share in ((Tier.DEVICE, shares.below[tensor]), (Tier.EDGE, shares.above[tensor])):
                if share:
                    self._add(total, self._crosses(lower, tensor), share)
            if shares.beyond[tensor]:
                self._add(total, self._goes_all_the_way(tensor, shares), shares.beyond[tensor])
        return steps.reduced(total)

    def _crosses(self, lower: Tier, tensor: int) -> Expression:
        """1 if the tensor goes up the link."""
        steps = self.program.steps
        reach, producer = self._reached(lower, tensor), steps.find(steps.passed(lower, steps.graph.producer[tensor]))
        found = dict(reach)
        found[producer] = found.get(producer, 0.0) - 1.0
        return {unknown: factor for unknown, factor in found.items() if factor}

    def _goes_all_the_way(self, tensor: int, shares: Shares) -> Expression:
        """1 if it goes from the device to the cloud.

        That is a product of unknowns, and what pulls it down or up decides which rows it needs. Pulled up, it may not
        pull the reach of its tensor with it beyond all readers.
        """
        if tensor not in self._whole:
            steps = self.program.steps
            inside = steps.find(steps.passed(Tier.DEVICE, steps.graph.producer[tensor]))
            reach, beyond = self._reached(Tier.EDGE, tensor), shares.beyond[tensor]
            if self.is_peaked or beyond + shares.above[tensor] < 0:
                readers = (steps.passed(Tier.EDGE, reader) for reader in steps.graph.consumers[tensor])
                self.program.no_larger_than_sum(reach, readers)
            pulled = {"is_up": self.is_peaked or beyond < 0, "is_down": self.is_peaked or beyond > 0}
            self._whole[tensor] = self.program.product(reach, inside, **pulled)
        return self._whole[tensor]

    def _reached(self, lower: Tier, tensor: int) -> Expression:
        """1 if any reader stands beyond the link."""
        if (lower, tensor) not in self._reach:
            steps = self.program.steps
            readers = (steps.passed(lower, reader) for reader in steps.graph.consumers[tensor])
            self._reach[lower, tensor] = self.program.largest(readers)
        return self._reach[lower, tensor]

    @staticmethod
    def _add(total: Expression, part: Expression, factor: float) -> None:
        for unknown, share in part.items():
            total[unknown] = total.get(unknown, 0.0) + factor * share
