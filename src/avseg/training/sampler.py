"""Which clip comes when, and what is random: functions of the seed and the position alone, so nothing can be lost."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler


class Position(NamedTuple):
    """How far a run has come: ``batch`` batches of epoch ``epoch`` are done."""

    epoch: int = 0
    batch: int = 0


START = Position()


class ResumableSampler(Sampler[int]):
    """Every clip once an epoch, in an order that only the seed and the epoch decide; can start at any position.

    With several processes the order is dealt out clip by clip; when it does not come out even, the first clips of
    the epoch fill the gap.

    Args:
        clips: Number of clips.
        seed: Of the run.
        batch_size: Clips per batch, to count the start in.
        start: What has been seen already.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(
        self, clips: int, seed: int, batch_size: int, start: Position = START, rank: int = 0, world: int = 1
    ) -> None:
        self.clips, self.seed, self.rank, self.world = clips, seed, rank, world
        self.epoch, self.skip = start.epoch, start.batch * batch_size

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless already in it (called by Lightning)."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        """Clips of a whole epoch in this process, wherever it starts."""
        return -(-self.clips // self.world)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        order = torch.randperm(self.clips, generator=generator)
        mine = order.repeat(2 if self.clips % self.world else 1)[self.rank :: self.world][: len(self)]
        return iter(mine[self.skip :].tolist())


def mix(*numbers: int) -> int:
    """One seed from several numbers; close inputs give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def reseed(*numbers: int) -> None:
    """Set the random state of Python, numpy and torch (all devices) from some numbers."""
    seed = mix(*numbers)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from the global state
    torch.manual_seed(seed)
