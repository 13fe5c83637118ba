import numpy as np
import pytest

from avseg.synthesis.sprites.traits import CELLS, REGIONS, Traits, mix, shade

SPLITS = ("train", "val", "test")


def test_split_regions_are_disjoint():
    edges = [edge for split in SPLITS for edge in REGIONS[split]]
    assert edges == sorted(edges)
    assert edges[0] >= 0.0
    assert edges[-1] <= 1.0
    assert REGIONS["train"][1] < REGIONS["val"][0] < REGIONS["val"][1] < REGIONS["test"][0]


@pytest.mark.parametrize("split", SPLITS)
def test_positions_stay_in_split_and_cover_all_cells(split):
    traits = Traits(np.random.default_rng(0), split)
    positions = np.array([traits.position() for _ in range(500)]) * CELLS
    low, high = REGIONS[split]
    assert ((positions % 1.0 >= low - 1e-9) & (positions % 1.0 <= high + 1e-9)).all()
    assert set(np.floor(positions)) == set(range(CELLS))


@pytest.mark.parametrize("kind", ["uniform", "pitch"])
def test_values_of_splits_are_disjoint(kind):
    values = {}
    for split in SPLITS:
        draw = getattr(Traits(np.random.default_rng(1), split), kind)
        values[split] = np.sort([draw(100.0, 400.0) for _ in range(400)])
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert np.abs(values[a][:, None] - values[b]).min() > 0.5


def test_colours():
    assert mix((0, 0, 0), (200, 100, 50), 0.5) == (100, 50, 25)
    assert shade((200, 100, 0), 2.0) == (255, 200, 0)
