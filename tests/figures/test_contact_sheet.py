import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from avseg.colours import colour
from avseg.data import AVSDataset, Sample, build_dataset
from avseg.data._base import lengthen
from avseg.errors import ConfigError
from avseg.figures.contact_sheet import contact_sheet, show


class Changed(AVSDataset):
    """A data set of one given clip."""

    def __init__(self, sample: Sample, names: tuple[str, ...]) -> None:
        self.sample, self.class_names = sample, names

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample


@pytest.fixture
def clip() -> Sample:
    return build_dataset("synthetic", "val", variant="avss", size=32, frames=2)[0]


def masked(sample: Sample, masks: torch.Tensor) -> Sample:
    return sample._replace(target=dataclasses.replace(sample.target, masks=masks))


def has(sheet: Image.Image, rgb) -> bool:
    return bool((np.asarray(sheet) == rgb).all(-1).any())


def test_one_strip_per_clip_with_all_frames():
    data = build_dataset("synthetic", "val", size=(32, 64), frames=4)
    one, two = contact_sheet(data, [0]), contact_sheet(data, [0, 1])
    assert one.mode == "RGB"
    assert two.width == one.width > 800
    assert one.height < two.height < 2 * one.height


def test_colours_match_labels_of_clip(clip):
    nothing = torch.zeros_like(clip.target.masks)
    three, ignored = nothing.clone(), nothing.clone()
    three[..., 8:24, 8:24] = 3
    ignored[..., 8:24, 8:24] = 255
    names = build_dataset("synthetic", "val", variant="avss").class_names
    sheets = [contact_sheet(Changed(masked(clip, m), names), [0]) for m in (nothing, three, ignored)]
    assert [has(s, colour(3)) for s in sheets] == [False, True, False]
    assert [has(s, colour(255)) for s in sheets] == [False, False, True]


def test_categories_have_names_and_colours():
    settings = {"size": 32, "frames": 2, "variant": "s4"}
    named, plain = (build_dataset("synthetic", "val", categories=named, **settings) for named in (True, False))
    label = int(named[0].target.masks.max())
    assert label > 1
    sheets = [contact_sheet(data, [0]) for data in (named, plain)]
    assert [[has(s, colour(k)) for k in (1, label)] for s in sheets] == [[False, True], [True, False]]


def test_padding_frames_are_not_drawn(clip):
    padded = lengthen(clip, 5)
    assert padded.clip.valid.sum() == 2
    names = build_dataset("synthetic", "val", variant="avss").class_names
    shown, expected = (contact_sheet(Changed(sample, names), [0]) for sample in (padded, clip))
    assert np.array_equal(shown, expected)


def test_times_match_phase_of_data_set(clip):
    names = build_dataset("synthetic", "val", variant="avss").class_names
    late = Changed(clip, names)
    late.phase = 15 / 16
    assert not np.array_equal(contact_sheet(late, [0]), contact_sheet(Changed(clip, names), [0]))


def test_unlabelled_frames_are_marked(clip):
    names = build_dataset("synthetic", "val", variant="avss").class_names
    unlabelled = dataclasses.replace(clip.target, labelled=torch.tensor([[True, False]]))
    all_labelled = np.asarray(contact_sheet(Changed(clip, names), [0]))
    differs = (all_labelled != np.asarray(contact_sheet(Changed(clip._replace(target=unlabelled), names), [0]))).any(
        (0, 2)
    )
    assert differs[len(differs) // 2 :].any()
    assert not differs[: len(differs) // 2].any()


def test_silence_is_dark(clip):
    names = build_dataset("synthetic", "val", variant="avss").class_names
    silent = dataclasses.replace(clip.clip, audio=torch.full_like(clip.clip.audio, float(np.log(0.01))))
    sheet = np.asarray(contact_sheet(Changed(clip._replace(clip=silent), names), [0]))
    assert (sheet[sheet.shape[0] - 80, 30:200] < 10).all()


def test_show_writes_only_the_image(tmp_path):
    out = show(
        {"name": "synthetic", "variant": "s4", "size": 16, "train": 9},
        tmp_path / "new" / "sheet.png",
        split="train",
        clips=3,
    )
    with Image.open(out) as sheet:
        assert sheet.size[0] > 500
    assert [p.name for p in out.parent.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    ("settings", "out", "clips", "hint"),
    [
        ({"name": "synthetic", "size": 16}, "sheet.txt", 1, "give a .png or .jpg"),
        ({"name": "synthetic", "size": 16}, "sheet.png", 0, "clips must be 1 or more, got 0"),
        ({"name": "sinthetic"}, "sheet.png", 1, "Did you mean 'synthetic'?"),
        ({"name": "synthetic", "sise": 16}, "sheet.png", 1, "Did you mean 'size'?"),
    ],
)
def test_user_error_raises_one_line_and_writes_nothing(tmp_path, settings, out, clips, hint):
    with pytest.raises(ConfigError) as caught:
        show(settings, tmp_path / out, clips=clips)
    assert hint in str(caught.value)
    assert not list(tmp_path.iterdir())
