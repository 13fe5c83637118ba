"""Order of clips and random seeds as functions of the run's seed and position, so that a run can be resumed."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler


class Position(NamedTuple):
    """Progress of a run: ``batch`` batches of epoch ``epoch`` are done."""

    epoch: int = 0
    batch: int = 0


START = Position()


class ResumableSampler(Sampler[int]):
    """Sample every clip once per epoch, in an order that depends on seed and epoch only, from any start position.

    In distributed training, clips are assigned to processes in turn; if their number is not a multiple of the number
    of processes, the first clips of the epoch are repeated.

    Args:
        clips: Number of clips.
        seed: Seed of the run.
        batch_size: Clips per batch, the unit of ``start``.
        start: Position to start from.
        rank: Index of this process.
        world: Number of processes.
    """

    def __init__(
        self, clips: int, seed: int, batch_size: int, start: Position = START, rank: int = 0, world: int = 1
    ) -> None:
        self.clips, self.seed, self.rank, self.world = clips, seed, rank, world
        self.epoch, self.skip = start.epoch, start.batch * batch_size

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch, unless it is the current one (called by Lightning)."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        """Return the number of clips of a whole epoch in this process, independent of the start."""
        return -(-self.clips // self.world)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        order = torch.randperm(self.clips, generator=generator)
        mine = order.repeat(2 if self.clips % self.world else 1)[self.rank :: self.world][: len(self)]
        return iter(mine[self.skip :].tolist())


def mix(*numbers: int) -> int:
    """Return one seed from several numbers; close inputs give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def reseed(*numbers: int) -> None:
    """Seed Python, numpy and torch (all devices) from several numbers."""
    seed = mix(*numbers)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries use the global state
    torch.manual_seed(seed)
