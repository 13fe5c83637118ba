import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from avseg.data import build_dataset, collate
from avseg.data.synthetic import KINDS, SIMILAR_KINDS, SpriteStock, Synthetic, similar_appearances
from avseg.errors import ConfigError
from avseg.interface import Target
from avseg.media.images import denormalise
from avseg.mel import OFFSET
from avseg.synthesis.sprites.similarity import likeness

SPLITS = ("train", "val", "test")


def data(variant="ms3", split="train", **settings):
    return build_dataset("synthetic", split, variant=variant, **{"size": 48, **settings})


def digest(sample) -> str:
    parts = (sample.clip.frames, sample.clip.audio, sample.target.masks, sample.target.labelled)
    return hashlib.sha256(b"".join(p.numpy().tobytes() for p in parts)).hexdigest()


@pytest.mark.slow
def test_clip_is_equal_in_another_process():
    code = (
        "from avseg.data import build_dataset\n"
        "import hashlib\n"
        "s = build_dataset('synthetic', 'val', variant='avss', size=48)[7]\n"
        "parts = (s.clip.frames, s.clip.audio, s.target.masks, s.target.labelled)\n"
        "print(hashlib.sha256(b''.join(p.numpy().tobytes() for p in parts)).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    ours = data("avss", "val")
    assert [digest(ours[7]), digest(ours[7])] == [there, there]


def test_benchmark_is_unchanged():
    scenes = [data("avss", "test", size=64).scene(k) for k in range(6)]
    assert [s.labels for s in scenes] == GOLDEN_LABELS
    assert [s.sounds.sum(1).tolist() for s in scenes] == GOLDEN_SOUNDS
    # rendering differs slightly between versions of Pillow, hence the tolerances
    assert [float(s.frames.mean()) for s in scenes] == pytest.approx(GOLDEN_BRIGHTNESS, abs=2.0)
    assert [float((s.instances > 0).mean()) for s in scenes] == pytest.approx(GOLDEN_COVER, abs=0.01)
    assert [float(np.abs(s.waveform).mean()) for s in scenes] == pytest.approx(GOLDEN_LOUDNESS, rel=0.02)


def test_ambiguity_none_equals_benchmark():
    assert digest(data("avss", "val", ambiguity="none")[3]) == digest(data("avss", "val")[3])


GOLDEN_LABELS = [(1,), (3, 11, 9), (3, 10), (8, 5, 6), (6, 9, 1, 8), (12, 4, 7, 5)]
GOLDEN_SOUNDS = [[2], [5, 5, 0], [2, 1], [0, 3, 0], [0, 0, 0, 5], [0, 0, 4, 0]]
GOLDEN_BRIGHTNESS = [67.46, 106.58, 148.85, 196.94, 121.32, 161.0]
GOLDEN_COVER = [0.3072, 0.3637, 0.1441, 0.5661, 0.6304, 0.2757]
GOLDEN_LOUDNESS = [0.02485, 0.07732, 0.03432, 0.00863, 0.00426, 0.02564]


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[k.name for k in KINDS])
def test_objects_vary_and_splits_differ_in_appearance(kind):
    def look(split, clip):
        image = SpriteStock(split).cut_out(kind + 1, np.random.default_rng(clip), 40).image
        assert image.mode == "RGBA"
        assert 20 <= max(image.size) <= 80
        alpha = np.asarray(image)[..., 3]
        assert (alpha > 127).mean() > 0.15
        return image.resize((24, 24)).tobytes()

    looks = [look(split, clip) for split in SPLITS for clip in range(5)]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("variant", ["s4", "ms3", "avss"])
def test_variants_label_their_frames(variant, split):
    ours = data(variant, split)
    sample = ours[0]
    names = tuple(k.name for k in KINDS) if variant == "avss" else ("sounding",)
    assert ours.class_names == ("background", *names)
    assert ours.classes == (1 if variant != "avss" else 1 + len(KINDS))
    first = variant == "s4" and split == "train"
    assert sample.target.labelled.tolist() == [[True] + [not first] * 4]
    assert sample.target.masks.dtype == torch.int64
    assert sample.names == [f"{split}-00000"]
    top = max(int(ours[k].target.masks.max()) for k in range(6 if variant == "avss" else 3))
    assert top == 1 if variant != "avss" else 1 < top <= len(KINDS)


@pytest.mark.parametrize("variant", ["s4", "ms3", "avss"])
def test_mask_shows_visible_sounding_objects(variant):
    ours = data(variant, frames=3)
    for index in range(12):
        (_, target, _), scene = ours.sample_with_scene(index)
        for t in range(3):
            loud = [a for a in range(len(scene.labels)) if scene.sounds[a, t] and scene.seen[a]]
            assert bool(target.masks[0, t].any()) == bool(loud)
            assert set(np.unique(scene.masks[t])) - {0} == {scene.labels[a] for a in loud}
            assert ((target.masks[0, t] > 0).numpy() == np.isin(scene.instances[t], [a + 1 for a in loud])).all()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["s4", "ms3"])
def test_categories_change_only_labels(variant):
    plain, named, full = data(variant), data(variant, categories=True), data("avss", categories=True)
    assert (named.class_names, named.classes) == (plain.class_names, plain.classes) == (("background", "sounding"), 1)
    assert (plain.category_names, plain.categories) == (plain.class_names, 1)
    assert named.category_names == full.category_names == full.class_names == data("avss").category_names
    assert named.categories == len(KINDS)
    for index in range(4):
        ours, theirs = named[index], plain[index]
        assert torch.equal(ours.target.masks[0], torch.from_numpy(named.scene(index).masks))
        binary = ours._replace(target=Target((ours.target.masks != 0).long(), ours.target.labelled))
        assert digest(binary) == digest(theirs)
        assert digest(full[index]) == digest(data("avss")[index])
    assert max(int(named[index].target.masks.max()) for index in range(4)) > 1


@pytest.mark.slow
def test_s4_source_is_visible_in_every_frame():
    ours = data("s4", "val", size=32)
    assert all(ours[k].target.masks.flatten(2).any(2).all() for k in range(30))


@pytest.mark.slow
def test_seconds_without_source_are_near_noise_floor():
    ours, quiet, loud = data(size=16), [], []
    for index in range(40):
        sample, scene = ours.sample_with_scene(index)
        peaks, voices = sample.clip.audio[0].amax((1, 2, 3)), scene.sounds.any(0)
        quiet += peaks[torch.from_numpy(~voices)].tolist()
        loud += peaks[torch.from_numpy(voices)].tolist()
    assert len(quiet) > 10
    assert max(quiet) < min(2.0, float(np.median(loud)) - 2.0)
    assert min(loud) > np.log(OFFSET) + 2.0


@pytest.mark.slow
def test_saliency_baseline_is_low():
    ours = data("s4", "test", size=32)
    share = []
    for index in range(40):
        scene = ours.scene(index)
        share.append((scene.masks > 0).sum() / (scene.instances > 0).sum())
    assert np.mean(share) < 0.6


@pytest.mark.parametrize(("frames", "size"), [(1, 40), (3, (32, 56)), (7, (56, 24))])
def test_any_length_and_size(frames, size):
    sample = data("avss", frames=frames, size=size)[1]
    height, width = (size, size) if isinstance(size, int) else size
    assert sample.clip.frames.shape == (1, frames, 3, height, width)
    assert sample.clip.audio.shape == (1, frames, 1, 96, 64)
    assert sample.target.masks.shape == (1, frames, height, width)


def test_collate_pads_shorter_clips():
    batch = collate([data(frames=2)[0], data(frames=3)[1]])
    assert batch.clip.frames.shape == (2, 3, 3, 48, 48)
    assert batch.clip.valid.tolist() == [[True, True, False], [True] * 3]
    assert batch.target.labelled.tolist() == [[True, True, False], [True] * 3]


def test_frames_equal_scene_frames():
    ours = data()
    assert (denormalise(ours[2].clip.frames[0]).numpy() == ours.scene(2).frames).all()


def test_seed_split_and_index_change_the_clip():
    clips = [digest(data(split=split, seed=seed)[k]) for split in SPLITS for seed in (0, 1) for k in (0, 1)]
    assert len(set(clips)) == 12


def test_index_out_of_range_raises():
    ours = Synthetic(Synthetic.Config(size=16, train=2), "train")
    assert len(list(ours)) == len(ours) == 2
    with pytest.raises(IndexError, match="clip 2 of 2"):
        ours[2]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("variant", ["s4", "ms3", "avss"])
def test_spatial_clips_have_one_sounding_object_of_a_pair(variant, split):
    ours, areas = data(variant, split, ambiguity="spatial", size=40, frames=2), []
    for index in range(7):
        scene = ours.scene(index)
        assert tuple(sorted(scene.labels[:2])) in SIMILAR_KINDS
        assert scene.seen[:2] == (True, True)
        assert scene.sounds[0].any()
        assert not scene.sounds[1].any()
        shown = [(scene.instances == thing).mean((1, 2)) for thing in (1, 2)]
        assert min(s.min() for s in shown) >= 0.03
        areas.append(shown[0].mean() / shown[1].mean())
    assert 0.6 < np.median(areas) < 1.6


@pytest.mark.parametrize("split", SPLITS)
def test_temporal_clips_have_visible_onsets(split):
    ours = data("ms3", split, ambiguity="temporal", size=24)
    for index in range(12):
        scene = ours.scene(index)
        loud = scene.sounds[scene.sounds.any(1)]
        assert (np.diff(loud.astype(int), axis=1) != 0).any(1).all()
        assert scene.sounds[np.array(scene.seen)].any()
        patterns = [set(np.unique(mask)) for mask in scene.masks]
        assert any(a != b for a, b in itertools.pairwise(patterns))


@pytest.mark.parametrize("ambiguity", ["spatial", "temporal"])
def test_ambiguous_clips_are_reproducible_and_distinct(ambiguity):
    settings = {"size": 24, "frames": 2}
    ours, again, plain = (data(ambiguity=a, **settings) for a in (ambiguity, ambiguity, "none"))
    clips = [digest(ours[k]) for k in range(4)]
    assert clips == [digest(again[k]) for k in range(4)]
    assert not {*clips} & {digest(plain[k]) for k in range(4)}


@pytest.mark.parametrize("ambiguity", ["spatial", "temporal"])
def test_ambiguous_clips_are_unchanged(ambiguity):
    ours = data("avss", "test", ambiguity=ambiguity, size=24)
    scenes = [ours.scene(k) for k in range(4)]
    assert [(s.labels, ["".join(map(str, row.astype(int))) for row in s.sounds]) for s in scenes] == AMBIGUOUS[
        ambiguity
    ]


AMBIGUOUS = {
    "spatial": [
        ((12, 5), ["11111", "00000"]),
        ((5, 12), ["10011", "00000"]),
        ((2, 3, 9), ["11111", "00000", "00000"]),
        ((2, 3, 8, 9), ["11111", "00000", "11111", "10001"]),
    ],
    "temporal": [
        ((1,), ["01000"]),
        ((3, 11, 9), ["00100", "00000", "00000"]),
        ((3,), ["01111"]),
        ((8, 5, 6), ["00000", "01111", "01001"]),
    ],
}


@pytest.mark.parametrize(
    "pair", SIMILAR_KINDS, ids=[f"{KINDS[a - 1].name}-{KINDS[b - 1].name}" for a, b in SIMILAR_KINDS]
)
def test_pair_is_more_similar_than_objects_of_one_class(pair):
    rng = np.random.default_rng(0)

    def draft(stock, label):
        return stock.cut_out(label, rng, 32)

    plain = SpriteStock("train")
    drawn_alike = [SpriteStock("train", similar_appearances("train", pair, rng)) for _ in range(6)]
    alike = np.mean([likeness([draft(s, pair[0])], [draft(s, pair[1])]) for s in drawn_alike])
    kinds = [[draft(plain, kind + 1) for _ in range(8)] for kind in range(len(KINDS))]
    same = np.mean([likeness(things, things)[~np.eye(8, dtype=bool)].mean() for things in kinds])
    apart = likeness(*([draft(plain, label) for _ in range(8)] for label in pair)).mean()
    assert alike > same + 0.03
    assert alike > apart + 0.1


def test_fixed_appearance_is_equal_at_any_time_and_size():
    stock, rng = SpriteStock("val", {3: 17}), np.random.default_rng(0)
    first, again = (stock.cut_out(3, rng, 60) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert likeness([first], [stock.cut_out(3, rng, 30)])[0, 0] > 0.9
    assert stock.cut_out(2, rng, 60).image.tobytes() != stock.cut_out(2, rng, 60).image.tobytes()


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"size": 10**30}, "size of Synthetic must be at most 2147483647"),
        ({"size": (32, 2**31)}, "size of Synthetic must be at most 2147483647"),
        ({"size": 20_000}, "5 frames of 20000 x 20000 pixels are more than 100 megapixels per clip"),
        ({"frames": 10**6}, "1000000 frames of 48 x 48 pixels are more than 100 megapixels"),
    ],
)
def test_clips_that_exhaust_the_memory_are_refused(settings, hint):
    with pytest.raises(ConfigError, match=hint):
        data(**{"variant": "ms3", **settings})


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"ambiguity": "temporl"}, "Did you mean 'temporal'"),
        ({"ambiguity": "temporal", "variant": "s4"}, "variant 'ms3' or 'avss' and frames 2 or more, got 's4' and 5"),
        ({"ambiguity": "temporal", "frames": 1}, "frames 2 or more, got 'ms3' and 1"),
    ],
)
def test_wrong_ambiguity_raises(settings, hint):
    with pytest.raises(ConfigError, match=hint) as error:
        data(**{"variant": "ms3", **settings})
    assert "\n" not in str(error.value)
