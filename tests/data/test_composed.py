import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from avseg.data import build_dataset, collate
from avseg.data.composed import ComposedClips
from avseg.errors import ConfigError, DataError
from avseg.mel import SAMPLE_RATE
from avseg.synthesis import soundtrack
from avseg.synthesis.soundtrack import SILENT, SOUNDING, UNCLEAR, Event
from avseg.synthesis.stock import open_stock

COLOURS = {"dog": (230, 40, 40), "car": (40, 230, 40), "chair": (40, 40, 230)}
CLASSES = """classes:
  - {number: 1, name: dog, sounds: [bark]}
  - {number: 2, name: car, sounds: [engine]}
  - {number: 3, name: chair, silent: true}
background_sounds: {rain: [], traffic: [car]}
"""


def picture(folder: Path, name: str, number: int, *, shift: int = 0) -> None:
    """A square in the colour of its class on grey, with an ignored border, its mask, and two instances of it."""
    image, mask = np.full((90, 120, 3), 120, np.uint8), np.zeros((90, 120), np.uint8)
    image[20:70, 30 + shift : 90 + shift] = COLOURS[name]
    mask[20:70, 30 + shift : 90 + shift] = number
    mask[16:20, 30 + shift : 90 + shift] = 255
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{name}{shift}.jpg", quality=95)
    Image.fromarray(mask).save(folder / f"{name}{shift}.png")


def tone(path: Path, hertz: float, seconds: float = 1.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
    wavfile.write(path, SAMPLE_RATE, (wave * 32767).astype(np.int16))


def make_stock(root: Path, parts: tuple[str, ...] = ("train", "val", "test")) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.yaml").write_text(CLASSES)
    for part in parts:
        for number, name in enumerate(COLOURS, 1):
            for shift in (0, 10):
                picture(root / part / "images" / name, name, number, shift=shift)
        stamp = np.zeros((40, 40, 4), np.uint8)
        stamp[5:35, 5:35] = (*COLOURS["dog"], 255)
        (root / part / "cutouts" / "dog").mkdir(parents=True)
        Image.fromarray(stamp).save(root / part / "cutouts" / "dog" / "stamp.png")
        for name, hertz in (("bark", 500), ("engine", 900), ("rain", 1700), ("traffic", 2500)):
            tone(root / part / "sounds" / name / "a.wav", hertz)
    return root


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Path:
    return make_stock(tmp_path_factory.mktemp("composed") / "stock")


def composed(stock: Path, split: str = "train", **settings) -> ComposedClips:
    return ComposedClips(ComposedClips.Config(root=str(stock), **{"size": 64, "frames": 3, **settings}), split)


def share_at(waveform: np.ndarray, hertz: float) -> float:
    """Part of the energy within 30 Hz of a frequency."""
    energy = np.abs(np.fft.rfft(waveform)) ** 2
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    return float(energy[np.abs(frequencies - hertz) < 30].sum() / energy.sum())


def test_sample_has_the_shapes_of_a_clip(stock):
    sample = build_dataset("composed", "train", root=str(stock), size=(48, 64), frames=3)[0]
    assert sample.clip.frames.shape == (1, 3, 3, 48, 64)
    assert sample.clip.audio.shape == (1, 3, 1, 96, 64)
    assert sample.target.masks.shape == (1, 3, 48, 64)
    assert sample.target.labelled.all()


def test_clip_depends_only_on_index_and_seed(stock):
    one, again, other = (composed(stock, seed=seed) for seed in (0, 0, 1))
    for k in (7, 2, 7):
        for a, b in zip(one[k].clip.__dict__.values(), again[k].clip.__dict__.values(), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(one[7].clip.frames, other[7].clip.frames)
    assert not torch.equal(one[7].clip.frames, one[8].clip.frames)


def test_workers_give_the_same_clips(stock):
    data = composed(stock, train=6)
    alone = [data[k] for k in range(6)]
    loader = torch.utils.data.DataLoader(data, 2, num_workers=2, collate_fn=collate)
    for k, batch in enumerate(loader):
        both = collate(alone[2 * k : 2 * k + 2])
        assert torch.equal(batch.clip.frames, both.clip.frames)
        assert torch.equal(batch.target.masks, both.target.masks)
        assert batch.names == both.names


def test_pickled_stock_maps_its_files_again(stock):
    data = composed(stock)
    assert len(pickle.dumps(data)) < 20_000
    assert torch.equal(pickle.loads(pickle.dumps(data))[3].clip.frames, data[3].clip.frames)


def test_masks_mark_the_class_whose_sound_is_audible(stock):
    """Dogs are red and bark at 500 Hz, cars are green and run at 900 Hz."""
    data = composed(stock, kind="pair", train=60, frames=1, categories=True, negatives=0.0)
    marked = {1: 0, 2: 0}
    for k in range(60):
        scene = data.compose(k)
        labels = scene.labels(categories=True)[0]
        for number, hertz, channel in ((1, 500, 0), (2, 900, 1)):
            inside = labels == number
            if inside.any():
                marked[number] += 1
                colour = scene.frames[0][inside].mean(0)
                assert colour.argmax() == channel or np.ptp(colour) < 25  # a clip in grey has no colour
                assert scene.states[scene.classes.index(number)][0] == SOUNDING
                assert share_at(scene.waveform, hertz) > 0.008  # audible down to -20 dB
        assert 3 not in labels
    assert min(marked.values()) >= 5


@pytest.mark.slow
def test_third_of_frames_has_no_visible_source(stock):
    data = composed(stock, train=300, size=32)
    empty = [not (data.compose(k).states == SOUNDING)[:, t].any() for k in range(300) for t in range(3)]
    assert 0.25 < np.mean(empty) < 0.5


def test_negative_clips_mark_nothing(stock):
    data = composed(stock, train=40, negatives=1.0)
    for k in range(40):
        scene = data.compose(k)
        assert not (scene.states == SOUNDING).any()
        assert set(np.unique(scene.labels(categories=False))) <= {0, 255}
        assert np.abs(scene.waveform).max() <= 1.0


def test_off_screen_sounds_are_of_no_visible_class(stock):
    data = composed(stock, kind="photo", train=60, negatives=1.0)
    used = 0
    for k in range(60):
        scene = data.compose(k)
        sounds = {f.split("/")[1] for f in scene.files if f.startswith("sounds")}
        made = {1: {"bark"}, 2: {"engine", "traffic"}, 3: set()}
        used += bool(sounds)
        assert not any(sounds & made[c] for c in scene.classes)
    assert used > 20


@pytest.mark.slow
def test_onsets_and_offsets_lie_inside_clips(stock):
    data = composed(stock, train=80, frames=5, size=32, negatives=0.0)
    changing = [row for k in range(80) for row in data.compose(k).states if {SOUNDING, SILENT} <= set(row)]
    assert len(changing) > 10


def test_only_the_twin_that_moves_sounds(stock):
    data = composed(stock, kind="paste", train=200, frames=4, size=64, negatives=0.0)
    seen = 0
    for k in range(200):
        scene = data._composer.compose(np.random.default_rng(k), "paste")
        if len(scene.moving) < 2:
            continue
        one, other = sorted(scene.moving)
        assert scene.classes[one - 1] == scene.classes[other - 1]
        still = dict.fromkeys(range(1, len(scene.classes) + 1), (False,) * 4)
        layers = [layer._replace(drift=(0.0, 0.0, 0.0, 0.0)) for layer in scene.layers]
        scene.layers[:] = layers
        objects = data._composer.render(np.random.default_rng(1), scene, {**still, one: (True,) * 4}, 4)[1]
        boxes = [
            {n: np.argwhere(frame == n).mean(0) if (frame == n).any() else None for n in (one, other)}
            for frame in objects
        ]
        if any(v is None for box in boxes for v in box.values()):
            continue
        steps = {n: np.linalg.norm(np.diff([b[n] for b in boxes], axis=0), axis=1).mean() for n in (one, other)}
        seen += steps[one] > steps[other]
    assert seen >= 3


def test_semantic_task_has_the_classes_of_the_stock(stock):
    data = composed(stock, task="semantic", negatives=0.0, train=20)
    assert data.class_names == ("background", "dog", "car", "chair")
    assert data.classes == 4
    found = {int(v) for k in range(20) for v in data[k].target.masks.unique()}
    assert {1, 2} <= found <= {0, 1, 2, 255}


def test_name_holds_sounding_class(stock):
    data = composed(stock, train=60, frames=1)
    names = {data[k].names[0].split("/")[0] for k in range(60)}
    assert names == {"dog", "car", "several", "nothing"}


def test_cache_is_reused_until_files_change(tmp_path, monkeypatch):
    root = make_stock(tmp_path / "s", parts=("train",))
    before = composed(root).compose(0)
    with monkeypatch.context() as patch:
        patch.setattr("avseg.synthesis.stock._decode", lambda *_: pytest.fail("decoded again"))
        np.testing.assert_array_equal(composed(root).compose(0).frames, before.frames)
    (root / "train/images/dog/dog0.jpg").write_bytes((root / "train/images/car/car0.jpg").read_bytes())
    stock = open_stock(root, "train")
    dog = next(p for p in stock.photos[1] if p.file.endswith("dog0.jpg"))
    assert stock.planes(dog)[45, 60, :3].argmax() == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images/dog/dog0.jpg", b"not an image", "dog0.jpg as an image"),
        ("images/dog/dog0.png", b"no mask", "dog0.png as a mask"),
        ("images/dog/dog0.png", None, "dog0.jpg has no mask: expected"),
        ("sounds/bark/a.wav", b"no sound", "a.wav as audio"),
        ("cutouts/dog/stamp.png", b"nothing", "stamp.png as an image"),
    ],
)
def test_broken_file_raises_or_is_skipped_by_setting(tmp_path, file, content, message):
    root = make_stock(tmp_path / "s", parts=("train",))
    (root / "train" / file).unlink()
    if content is not None:
        (root / "train" / file).write_bytes(content)
    if file.startswith("sounds"):
        tone(root / "train/sounds/bark/b.wav", 500)
    with pytest.raises(DataError, match=rf"{message}.*Repair or remove it, or set broken to skip"):
        composed(root)
    with pytest.warns(UserWarning, match=rf"1 files of .*cannot be used: .*{message}"):
        data = composed(root, broken="skip")
    assert data.compose(0).frames.shape == (3, 64, 64, 3)


def test_silent_recording_raises(tmp_path):
    root = make_stock(tmp_path / "s", parts=("train",))
    wavfile.write(root / "train/sounds/bark/zero.wav", SAMPLE_RATE, np.zeros(8000, np.int16))
    with pytest.raises(DataError, match=r"zero\.wav is silent"):
        composed(root)


def test_class_without_sounds_or_pictures_warns(tmp_path):
    root = make_stock(tmp_path / "s", parts=("train",))
    for path in (root / "train/sounds/bark").iterdir():
        path.unlink()
    for path in (root / "train/images/car").iterdir():
        path.unlink()
    with (
        pytest.warns(UserWarning, match="class dog has pictures, but no recordings of bark; class car has recordings"),
        pytest.raises(DataError, match="has no class with both pictures and recordings"),
    ):
        composed(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [{number: 2, name: dog}]", "must number its classes 1, 2, 3"),
        ("classes: [{number: 1}]", "must list classes with number, name and, if any, sounds"),
        ("other: 1", "must list classes with number, name and, if any, sounds"),
        ("classes: [{number: 1, name: dog}]\nbackground_sounds: {rain: [cat]}", "must list classes"),
    ],
)
def test_wrong_class_list_raises(tmp_path, text, message):
    root = make_stock(tmp_path / "s", parts=("train",))
    (root / "classes.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        composed(root)


def test_folder_without_class_raises(tmp_path):
    root = make_stock(tmp_path / "s", parts=("train",))
    (root / "train/images/car").rename(root / "train/images/cars")
    with pytest.raises(DataError, match=r"cars is no class of classes\.yaml"):
        composed(root)


def test_mask_value_without_class_raises(tmp_path):
    root = make_stock(tmp_path / "s", parts=("train",))
    Image.fromarray(np.full((90, 120), 9, np.uint8)).save(root / "train/images/dog/dog0.png")
    with pytest.raises(DataError, match=r"dog0\.png holds the value 9, but classes\.yaml has 3 classes"):
        composed(root)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 8}, "size must be 32 pixels or more, got 8"),
        ({"size": 20_000}, "more than 100 megapixels per clip"),
        ({"frames": 0}, "frames, train, val and test must be 1 or more"),
        ({"negatives": 1.5}, "negatives must lie in 0 … 1"),
        ({"kind": "collage"}, "kind must be one of all, photo, pair, mosaic, paste, got 'collage'"),
        ({"class_weights": {"wolf": 2.0}}, "unknown class 'wolf' in data.class_weights"),
    ],
)
def test_wrong_settings_raise(stock, settings, message):
    with pytest.raises(ConfigError, match=message):
        composed(stock, **settings)


def test_missing_root_raises():
    with pytest.raises(ConfigError, match=r"data\.root must name a stock folder"):
        build_dataset("composed", "train")
    with pytest.raises(DataError, match=r"no nowhere/classes\.yaml"):
        build_dataset("composed", "train", root="nowhere")


def test_window_levels_are_the_mean_square_of_the_window():
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(3 * SAMPLE_RATE).astype(np.float32) * 0.1
    for time, level in zip((0.2, 1.5, 2.9), soundtrack.window_levels(wave, np.array([0.2, 1.5, 2.9])), strict=True):
        centre, half = round(time * SAMPLE_RATE), round(0.48 * SAMPLE_RATE)
        padded = np.pad(wave.astype(np.float64), SAMPLE_RATE)
        slow = np.mean(padded[SAMPLE_RATE + centre - half : SAMPLE_RATE + centre + half] ** 2)
        assert level == pytest.approx(10 * np.log10(slow), abs=1e-6)


def test_states_follow_pauses_and_masking():
    """A tone that pauses in the second second, and one 40 dB below it."""
    at = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    loud = (0.1 * np.sin(2 * np.pi * 440 * at) * ((at < 1) | (at >= 2))).astype(np.float32)
    faint = (0.001 * np.sin(2 * np.pi * 700 * at)).astype(np.float32)
    rows = soundtrack.states([Event(loud, 1), Event(faint, 2)], loud + faint, np.array([0.5, 1.5, 2.5]))
    assert rows[0].tolist() == [SOUNDING, SILENT, SOUNDING]
    assert rows[1].tolist() == [SILENT, UNCLEAR, SILENT] or rows[1].tolist() == [SILENT, SILENT, SILENT]


def test_event_level_is_its_loudest_quarter_second():
    wave = np.zeros(SAMPLE_RATE, np.float32)
    wave[4000:8000] = np.sin(np.arange(4000) * 0.5)
    scaled = soundtrack.at_level(wave, -20.0)
    assert 10 * np.log10(np.mean(scaled[4000:8000] ** 2)) == pytest.approx(-20.0, abs=0.01)


def test_complete_stock_does_not_warn(stock):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        composed(stock)


def test_picture_weights_prefer_pictures_by_their_names(stock):
    data = composed(stock, kind="photo", train=60, picture_weights={"dog10": 1000.0})
    used = [file for k in range(60) for file in data.compose(k).files if "images/dog/" in file]
    assert used.count("images/dog/dog10.jpg") >= len(used) - 1 >= 4
