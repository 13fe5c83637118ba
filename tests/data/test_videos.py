"""User videos with all kinds of masks; all pixels and sounds are given by the test."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avseg.cli import main
from avseg.data import build_dataset
from avseg.data.videos import Videos
from avseg.dataset_tools.inspection import examine
from avseg.errors import AvsegError, ConfigError
from avseg.media import rle
from avseg.media.images import denormalise
from avseg.mel import log_mel_at
from avseg.pipeline.result import Result
from avseg.prediction.regions import Frame, Region

SIZE = (48, 64)
Film = Callable[..., Path]


def stripes(*labels: int) -> np.ndarray:
    """Return vertical stripes of these labels."""
    return np.array([labels], np.uint8).repeat(SIZE[1] // len(labels), 1).repeat(SIZE[0], 0)


def seen(sample) -> list[int]:
    """Return the indices of the frames."""
    return [round((float(denormalise(frame).float().mean()) - 20) / 5) for frame in sample.clip.frames[0]]


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def film(root, make_video, make_beep) -> Film:
    """Write a video under ROOT/videos: 3.2 s, eight frames a second, a beep in second 1."""

    def write(name: str = "a.mp4", times=tuple(k / 8 for k in range(26)), **settings) -> Path:
        (root / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        settings = {"sound": make_beep(times[-1] + 0.1, 1, 2, 48_000, 2), "rate": 48_000, **settings}
        return make_video(f"root/videos/{name}", times=times, **settings)

    return write


def paint(root: Path, name: str, second: int | str, labels: np.ndarray) -> None:
    path = root / "masks" / name / f"{second}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def put(root: Path, split: str, *names: str) -> None:
    (root / "split.csv").write_text("\n".join(["video,split", *(f"{name},{split}" for name in names)]) + "\n")


def data(root: Path, split: str = "train", **settings):
    return build_dataset("videos", split, root=str(root), **{"size": 0, **settings})


def test_frames_and_audio_are_taken_at_label_times(root, film, make_beep):
    film()
    paint(root, "a", 0, stripes(0, 255))
    paint(root, "a", 2, stripes(255, 0))
    put(root, "train", "a")
    ours = data(root)
    assert (len(ours), ours.class_names, ours.classes) == (1, ("background", "sounding"), 1)
    sample = ours[0]
    assert sample.names == ["a@0"]
    assert sample.target.labelled.tolist() == [[True, False, True]]
    assert sample.target.masks[0, :, 0, ::32].tolist() == [[0, 1], [0, 0], [1, 0]]
    assert seen(sample) == [4, 12, 20]
    expected = log_mel_at(torch.from_numpy(make_beep(3.2, 1, 2)[0]), torch.tensor([0.5, 1.5, 2.5]))
    band = int(expected[1].mean((0, 1)).argmax())
    torch.testing.assert_close(sample.clip.audio[0, ..., band], expected[..., band], atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "b/a.mov", "a.b.webm"])
def test_any_container_and_frame_rate(root, film, name):
    codecs = {"webm": {"codec": "libvpx", "sound_codec": "libopus"}, "mov": {"sound_codec": "aac"}}.get(
        name[-4:].strip("."), {}
    )
    film(name, [0.0, 0.1, 0.45, 0.6, 1.3, 1.49, 1.7, 2.4], **codecs)
    video = name.rpartition(".")[0]
    for second in (0, 1):
        paint(root, video, second, stripes(0, 1))
    put(root, "test", video)
    sample = data(root, "test")[0]
    assert (sample.names, seen(sample)) == ([f"{video}@0"], [2, 5])


def test_long_video_is_cut_into_clips(root, film):
    film(times=[k / 4 for k in range(37)])
    for second in (0, 1, 6, 8):
        paint(root, "a", f"{second:06d}", stripes(0, 1))
    put(root, "train", "a")
    samples = [data(root, seconds=3)[i] for i in range(len(data(root, seconds=3)))]
    assert [s.names[0] for s in samples] == ["a@0", "a@6"]  # nothing is labelled from 3 to 6 s
    assert [seen(s) for s in samples] == [[2, 6], [26, 30, 34]]
    assert [s.target.labelled.tolist() for s in samples] == [[[True, True]], [[True, False, True]]]
    (whole,) = data(root, seconds=0)
    assert seen(whole) == [2 + 4 * k for k in range(9)]
    assert torch.equal(whole.clip.audio[0, 6:], samples[1].clip.audio[0])


def test_label_255_is_kept(root, film):
    film()
    paint(root, "a", 0, stripes(0, 2, 1, 255))
    (root / "classes.txt").write_text("background\ndog\n\ncat\n")
    put(root, "val", "a")
    ours = data(root, "val")
    assert ours.class_names == ("background", "dog", "cat")
    assert ours[0].target.masks[0, 0, 0, ::16].tolist() == [0, 2, 1, 255]
    one = data(root, "val", classes="one")
    assert one.class_names == ("background", "sounding")
    assert one[0].target.masks[0, 0, 0, ::16].tolist() == [0, 1, 1, 255]


def coco(images, shapes, categories=((7, "cat"), (3, "dog"))) -> str:
    """Images: (file name, time or None); shapes: (image, category, segmentation)."""
    height, width = SIZE
    return json.dumps({
        "images": [
            {"id": 10 + i, "file_name": name, "height": height, "width": width, **({} if t is None else {"time": t})}
            for i, (name, t) in enumerate(images)
        ],
        "annotations": [
            {"id": i, "image_id": 10 + image, "category_id": category, "segmentation": segmentation}
            for i, (image, category, segmentation) in enumerate(shapes)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
    })  # fmt: skip


def test_coco_of_several_videos(root, film):
    film("a.mp4")
    film("b/c.mkv")
    left = np.zeros(SIZE, bool)
    left[:, :16] = True
    compressed = {"size": list(SIZE), "counts": rle.encode(left).counts.decode()}
    runs = {"size": list(SIZE), "counts": [16 * 48, 16 * 48, 32 * 48]}
    square = [[32, 0, 48, 0, 48, 48, 32, 48], [56, 0, 64, 0, 64, 48, 56, 48]]
    shapes = [(0, 3, compressed), (0, 7, runs), (2, 3, square)]
    (root / "annotations.json").write_text(
        coco([("a/1.png", None), ("a/000002.jpg", None), ("b/c/0.png", None)], shapes)
    )
    put(root, "train", "a", "b/c")
    ours = data(root)
    assert ours.class_names == ("background", "dog", "cat")
    a, c = ours[0], ours[1]
    assert (a.names, c.names) == (["a@0"], ["b/c@0"])
    assert a.target.labelled.tolist() == [[False, True, True]]
    assert a.target.masks[0, 1, 0, ::8].tolist() == [1, 1, 2, 2, 0, 0, 0, 0]
    assert not a.target.masks[0, 2].any()
    assert c.target.masks[0, 0, 0, ::8].tolist() == [0, 0, 0, 0, 1, 1, 0, 1]


def test_coco_of_predict_is_a_data_set(root, film):
    """Its images have the times of video frames; the one closest to the middle of a second is used."""
    video = film(times=[0.0, 0.31, 0.62, 0.93, 1.24, 1.55, 1.86, 2.2])
    frames = []
    for k, time in enumerate([0.0, 0.31, 0.62, 0.93, 1.24, 1.55, 1.86, 2.2]):
        mask = np.zeros(SIZE, bool)
        mask[:, : 8 * k] = True
        frames.append(Frame(time, (Region(2, 0.9, rle.encode(mask)),)))
    result = Result(video, SIZE, ("background", "dog", "siren"), frames, 2.3, "tiny", {})
    (root / "annotations").mkdir()
    (root / "annotations/a.json").write_text(json.dumps(result.to_coco()))
    put(root, "train", "a")
    ours = data(root)
    assert ours.class_names == ("background", "dog", "siren")
    sample = ours[0]
    assert seen(sample) == [2, 5, 7]
    for k, mask in zip([2, 5, 7], sample.target.masks[0].numpy(), strict=True):
        np.testing.assert_array_equal(mask, result.labels[k])


def test_label_time_anywhere_in_its_second(root, film):
    film()
    (root / "annotations").mkdir()
    (root / "annotations/a.json").write_text(coco([("x.jpg", 0.3), ("y.jpg", 1.95)], []))
    put(root, "train", "a")
    assert seen(data(root)[0]) == [2, 15]


class TestSplits:
    @pytest.fixture
    def many(self, root, film):
        path = film("v0.mp4")
        for k in range(1, 12):
            (root / f"videos/v{k}.mp4").write_bytes(path.read_bytes())
        for k in range(12):
            paint(root, f"v{k}", 0, stripes(0, 1))
        return root

    def names(self, root: Path) -> dict[str, list[str]]:
        return {s: [e.name[:-2] for e in data(root, s).find()] for s in ("train", "val", "test")}

    def test_checksum_assigns_splits_without_lists(self, many):
        splits = self.names(many)
        assert [len(splits[s]) for s in ("train", "val", "test")] == [10, 1, 1]
        assert len({name for names in splits.values() for name in names}) == 12
        assert self.names(many) == splits

    def test_lists_assign_splits(self, many):
        (many / "test.txt").write_text("v3\n\nv1\n")
        (many / "val.txt").write_text("v2\n")
        (many / "train.txt").write_text("\n".join(f"v{k}" for k in (0, *range(4, 12))))
        assert self.names(many)["test"] == ["v1", "v3"]
        assert self.names(many)["val"] == ["v2"]

    @pytest.mark.parametrize(
        ("listed", "hint"),
        [
            ([("v0", "train"), ("v00", "test")], "'v00', which is not a video there. Did you mean 'v0"),
            ([("v0", "train"), ("v0", "test")], "'v0' in two splits"),
            ([("v0", "train")], "is in no split list of"),
            ([("v0", "tset")], "split must be train, val or test"),
        ],
    )
    def test_bad_list_raises_one_line(self, many, listed, hint):
        (many / "split.csv").write_text("\n".join(["video,split", *(",".join(row) for row in listed)]))
        with pytest.raises(AvsegError) as caught:
            len(data(many))
        assert hint in str(caught.value)
        assert "\n" not in str(caught.value)


def lost_video(root: Path) -> None:
    (root / "videos/a.mp4").unlink()


def two_videos(root: Path) -> None:
    (root / "videos/a.mkv").touch()


def no_masks(root: Path) -> None:
    for path in (root / "masks/a").iterdir():
        path.unlink()


def both_kinds(root: Path) -> None:
    (root / "annotations.json").write_text(coco([("a/1.png", None)], []))


def wrong_name(root: Path) -> None:
    paint(root, "a", "frame1", stripes(0, 1))


def after_the_end(root: Path) -> None:
    paint(root, "a", 130, stripes(0, 1))


def other_size(root: Path) -> None:
    paint(root, "a", 0, stripes(0, 1)[:-2])


def high_label(root: Path) -> None:
    (root / "classes.txt").write_text("dog\ncat\n")
    paint(root, "a", 0, stripes(0, 3))


def twice_a_class(root: Path) -> None:
    (root / "classes.txt").write_text("dog\ndog\n")


def drawn(text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        no_masks(root)
        (root / "masks/a").rmdir()
        (root / "masks").rmdir()
        (root / "annotations.json").write_text(text)

    return change


def unknown_class(root: Path) -> None:
    drawn(coco([("a/0.png", None)], []))(root)
    (root / "classes.txt").write_text("dogs\ncat\n")


PICTURE = [("a/0.png", None)]


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lost_video, "a.<suffix>, got none"),
        (two_videos, "a.<suffix>, got a.mkv and a.mp4"),
        (no_masks, "expected masks/<video>/<second>.png, or annotations.json"),
        (both_kinds, "has both masks and annotations: remove one"),
        (wrong_name, "frame1.png: a mask is named after its second"),
        (after_the_end, "a.mp4 ends before 130.5 s, the time of a mask: name masks by second"),
        (other_size, "0.png is (64, 46) pixels, the frames of its video are (64, 48)"),
        (high_label, "0.png holds label 3, but classes.txt names 3 classes"),
        (twice_a_class, "must name each class once"),
        (drawn("{"), "is not a COCO instances file"),
        (drawn("[]"), "cannot read"),
        (drawn('{"images": []}'), "'categories' is missing"),
        (drawn(coco([("a/x.png", None)], [])), """'a/x.png' needs a "time", or the name"""),
        (drawn(coco([("a/0.png", -1.0)], [])), "the time of 'a/0.png' must be 0 to 604800 s, got -1.0"),
        (drawn(coco(PICTURE, [(0, 4, [])])), "4 is missing"),
        (
            drawn(coco(PICTURE, [(0, 3, {"size": [2, 2], "counts": [4]})])),
            "the segmentation of dog in a/0.png is not valid",
        ),
        (drawn(coco(PICTURE, [(0, 3, {"size": [48, 64], "counts": [4]})])), "add up to 4 pixels"),
        (drawn(coco(PICTURE, [(0, 3, {"size": [48, 64], "counts": "0"})])), "add up to 0 pixels"),
        (drawn(coco(PICTURE, [(0, 3, "here")])), "a list of polygons or run lengths, got 'here'"),
        (drawn(coco(PICTURE, [(0, 3, [[1, 2, 3]])])), "is not valid"),
        (unknown_class, "have a class 'dog', but"),
    ],
)
def test_bad_file_raises_one_line(root, film, change, hint):
    film()
    paint(root, "a", 0, stripes(0, 1))
    put(root, "train", "a")
    change(root)
    with pytest.raises(AvsegError) as caught:
        data(root)[len(data(root)) - 1]
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_video_without_audio_raises(root, film):
    film(sound=None)
    paint(root, "a", 0, stripes(0, 1))
    put(root, "train", "a")
    with pytest.raises(AvsegError, match=r"a\.mp4 has no sound track"):
        data(root)[0]


def test_wrong_setting_raises_one_line(root):
    with pytest.raises(ConfigError, match="seconds must be 0"):
        data(root, seconds=-1)
    with pytest.raises(ConfigError, match="Choose from: wav_centred"):
        data(root, audio="wav")
    assert data(root / "nowhere").split == "train"  # the constructor reads no file


def test_check_reads_every_clip_and_lists_all_faults(root, film):
    assert Videos.recognise(root) == []
    film("a.mp4", times=[k / 4 for k in range(49)])
    film("b.mp4", sound=None)
    film("idle.mp4")
    for second in (0, 11, 12):
        paint(root, "a", second, stripes(0, 1))
    paint(root, "a", 3, stripes(0, 1)[:-2])
    paint(root, "b", 0, stripes(0, 1))
    put(root, "train", "a", "b")
    (report,) = examine(root, progress=False)
    assert report.settings == {"name": "videos", "root": str(root)}
    train = report.splits["train"]
    assert (train.clips, train.listed["frames"], train.listed["masks"]) == (3, 3, 5)
    assert (train.listed["sounds"], train.readable["sounds"]) == (2, 1), "one per video, b.mp4 has none"
    faults = "\n".join(train.faults)
    assert len(train.faults) == 3
    assert "a.mp4 ends before 12.5 s" in faults
    assert "3.png is (64, 46) pixels" in faults
    assert "b.mp4 has no sound track" in faults
    assert [path.name for path in report.strays] == ["idle.mp4"]


def test_polygon_covers_pixels_with_centre_inside(root, film):
    corners = np.array([(5.2, 3.1), (60.7, 10.4), (40.3, 44.9), (20.6, 20.2)])
    film()
    (root / "annotations.json").write_text(coco(PICTURE, [(0, 3, [corners.ravel().tolist()])]))
    put(root, "train", "a")
    mask = data(root)[0].target.masks[0, 0].numpy() == 1

    def inside(x: float, y: float) -> bool:
        """Sum the angles of the edges seen from the point."""
        rays = (corners - (x, y)) @ (1, 1j)
        return abs(np.angle(np.roll(rays, -1) / rays).sum()) > np.pi

    expected = [[inside(x + 0.5, y + 0.5) for x in range(SIZE[1])] for y in range(SIZE[0])]
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.slow
@pytest.mark.parametrize("masks", ["png", "coco"])
def test_train_and_eval(root, film, tmp_path, capsys, masks):
    for name in "abcd":
        film(f"{name}.mp4", size=(64, 80))
        if masks == "png":
            paint(root, name, 1, np.pad(stripes(0, 1), ((0, 16), (0, 16))))
    if masks == "coco":
        square = [[0, 0, 40, 0, 40, 40, 0, 40]]
        text = coco([(f"{name}/1.png", None) for name in "abcd"], [(i, 3, square) for i in range(4)])
        (root / "annotations.json").write_text(text.replace('"height": 48, "width": 64', '"height": 64, "width": 80'))
    small = "--model.visual pvt_v2_b0 --model.audio compact --model.train_audio true --model.channels 8"
    steps = "--train.max_steps 1 --train.batch_size 2 --train.workers 0 --train.accelerator cpu"
    words = f"train --data videos --data.root {root} --data.size 32 {small} {steps} -o {tmp_path / 'run'}"
    assert main(words.split()) == 0
    assert main(["eval", str(tmp_path / "run/last"), "--split", "test", "--negatives", "false"]) == 0
    assert "1 clips, 1 frames" in capsys.readouterr().out


@pytest.mark.parametrize("second", ["99999999999", "9" * 5000, "604801"])
def test_mask_of_a_second_that_no_video_reaches_raises(root, film, second):
    film()
    if len(second) < 200:
        paint(root, "a", second, stripes(0, 1))
    else:
        (root / "annotations.json").write_text(coco_text(file_name=f"a/{second}.png", time=None))
    with pytest.raises(AvsegError, match="a label is at most at second 604800"):
        Videos(Videos.Config(root=str(root)), "train").find()


@pytest.mark.slow
def test_whole_video_as_a_clip_with_a_late_mask_raises(root, film):
    film()
    paint(root, "a", 600_000, stripes(0, 1))
    with pytest.raises(AvsegError, match="ends before 600000 s, the time of a mask"):
        [
            clip
            for split in ("train", "val", "test")
            for clip in Videos(Videos.Config(root=str(root), seconds=0), split).find()
        ]


def coco_text(segmentation=(), **image) -> str:
    """Return a COCO file of one image, whose fields are replaced; Python writes NaN and Infinity."""
    fields = {"id": 1, "file_name": "a/0.png", "height": SIZE[0], "width": SIZE[1], "time": 0.5} | image
    shapes = [{"image_id": 1, "category_id": 1, "segmentation": list(segmentation)}]
    return json.dumps({"images": [fields], "annotations": shapes, "categories": [{"id": 1, "name": "dog"}]})


@pytest.mark.parametrize(
    "change",
    [
        {"time": 1e18},
        {"time": float("inf")},
        {"time": float("nan")},
        {"time": -1},
        {"time": "soon"},
        {"height": -5},
        {"height": 0},
        {"height": 10**6, "width": 10**6},
        {"height": float("inf")},
        {"segmentation": [[1e300, 1, 2, 2, 3, 3]]},
        {"segmentation": [[float("nan"), 1, 2, 2, 3, 3]]},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": ["a"]},
    ],
)
def test_coco_with_impossible_numbers_raises_one_line(root, film, change):
    film()
    (root / "annotations.json").write_text(coco_text(**change))
    with pytest.raises(AvsegError, match=r"annotations\.json") as caught:
        Videos(Videos.Config(root=str(root)), "test")[0]
    assert "\n" not in str(caught.value)
