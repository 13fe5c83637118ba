import pytest

from avseg.data import build_dataset, collate, dataset_class, list_datasets
from avseg.data.synthetic import Synthetic
from avseg.errors import ConfigError, DataError


def test_data_sets_found_by_file_name():
    assert "synthetic" in list_datasets()
    assert not [name for name in list_datasets() if name.startswith("_")]
    assert dataset_class("synthetic") is Synthetic


def test_build_dataset_applies_settings():
    data = build_dataset("synthetic", "val", size=32, val=3)
    assert len(data) == 3


@pytest.mark.parametrize(
    ("name", "split", "settings", "hint"),
    [
        ("syntetic", "train", {}, "Did you mean 'synthetic'?"),
        ("synthetic", "tests", {}, "Did you mean 'test'?"),
        ("synthetic", "train", {"varient": "s4"}, "Did you mean 'variant'?"),
        ("synthetic", "train", {"variant": "s5"}, "variant = 's5' does not exist. Choose from: avss, ms3, s4."),
        ("synthetic", "train", {"size": 4}, "8 pixels or more, got 4"),
        ("synthetic", "train", {"frames": 0}, "1 or more"),
        ("synthetic", "train", {"seed": -1}, "0 or more, got -1"),
    ],
)
def test_wrong_name_raises_one_line(name, split, settings, hint):
    with pytest.raises(ConfigError) as caught:
        build_dataset(name, split, **settings)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_collate_unequal_sizes_raises() -> None:
    one, two = (build_dataset("synthetic", "val", size=size, frames=1, val=1)[0] for size in (32, 40))
    with pytest.raises(DataError, match=r"agree in height and width, got val-00000 \(32, 32\), val-00000 \(40, 40\)"):
        collate([one, two])
