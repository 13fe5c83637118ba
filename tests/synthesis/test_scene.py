import numpy as np
import pytest
from PIL import Image

from avseg.mel import SAMPLE_RATE
from avseg.synthesis.scene import Scene, stage
from avseg.synthesis.script import Role
from avseg.synthesis.sound_mix import mix
from avseg.synthesis.sprites.canvas import CutOut
from avseg.synthesis.stage import Actor, Camera, Pose, Setting, setting_size


class Plain:
    """Opaque squares of one colour per label, one tone per label; only positions are random."""

    def cut_out(self, label, rng, px):
        return CutOut(Image.new("RGBA", (px, px), (10 * label, 0, 0, 255)))

    def sound(self, label, rng, count):
        return np.sin(2 * np.pi * 200.0 * label * np.arange(count) / SAMPLE_RATE)

    def background(self, rng, width, height):
        return Image.new("RGB", (width, height), (0, 0, 255))

    def clutter(self, rng, px):
        return Image.new("RGBA", (px, px), (0, 255, 0, 255))

    def finish(self, rng, frames):
        return frames


def actor(number, colour, x, size=0.5):
    pose = Pose(x, 0.5, size, 0.0)
    return Actor(number, Image.new("RGBA", (20, 20), (*colour, 255)), pose, pose)


def test_front_object_occludes_others():
    camera = Camera(np.random.default_rng(0), (64, 64))
    sky = Setting(Image.new("RGB", setting_size((64, 64))))
    actors = [actor(1, (255, 0, 0), 0.4), actor(2, (0, 255, 0), 0.6), actor(0, (0, 0, 255), 0.6, 0.2)]
    frame, instances = camera.shoot(sky, actors, 0.0)
    colours = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0)}
    for number in (1, 2):
        assert (instances == number).any()
        assert (frame[instances == number] == colours[number]).all()
    blue = (frame == (0, 0, 255)).all(-1)
    assert blue.any()
    assert (instances[blue] == 0).all()  # clutter occludes the objects behind it


def test_masks_match_labels_and_sounding_seconds():
    roles = [Role(3, True, (True, False, True)), Role(5, True, (False,) * 3), Role(7, False, (False, True, False))]
    scene = stage(Plain(), roles, np.random.default_rng(1), 48, 80)
    assert scene.frames.shape == (3, 48, 80, 3)
    assert scene.masks.dtype == np.int64
    assert set(np.unique(scene.masks[0])) == {0, 3}
    assert set(np.unique(scene.masks[1])) == {0}  # 7 is off screen
    # half-transparent edges aside
    assert (np.median(scene.frames[scene.masks == 3], axis=0) == (30, 0, 0)).all()
    assert (np.median(scene.frames[scene.instances == 2], axis=0) == (50, 0, 0)).all()
    assert (scene.frames[scene.instances > 0][:, 1] < 128).all()  # green clutter has no number


def test_masks_equal_labels_of_sounding_instances():
    instances = np.array([[[0, 1, 2]], [[0, 1, 2]]], dtype=np.uint8)
    blank = np.zeros((2, 1, 3, 3), dtype=np.uint8)
    sounds = np.array([[True, False], [True, True]])
    scene = Scene(blank, np.zeros(2 * SAMPLE_RATE, np.float32), instances, (4, 9), (True, True), sounds)
    assert scene.masks.tolist() == [[[0, 4, 9]], [[0, 0, 9]]]


def test_source_is_audible_only_in_its_seconds():
    roles = [Role(2, True, (False, True, True, False))]
    wave = mix(Plain().sound, roles, np.random.default_rng(2), 4)
    assert wave.dtype == np.float32
    power = (wave.reshape(4, -1) ** 2).mean(1)
    assert power[[1, 2]].min() > 100 * power[[0, 3]].max()
    assert np.abs(wave).max() <= 1.0


@pytest.mark.parametrize("sounds", [(True, True), (True, False), (False, True)])
def test_onsets_and_offsets_are_faded(sounds):
    wave = mix(lambda label, rng, n: np.ones(n), [Role(1, True, sounds)], np.random.default_rng(3), 2)
    assert np.abs(np.diff(wave[800:])).max() < 0.25
    if sounds[0] != sounds[1]:
        quiet = wave[SAMPLE_RATE:] if sounds[0] else wave[:SAMPLE_RATE]
        assert np.abs(quiet[200:]).max() < 0.05


def test_scene_without_visible_objects():
    scene = stage(Plain(), [Role(1, False, (True,))], np.random.default_rng(0), 16, 16)
    assert not scene.masks.any()
    assert np.abs(scene.waveform).max() > 0.05


def test_setting_with_instances():
    size = setting_size((40, 30))
    image, who = Image.new("RGB", size, (9, 9, 9)), Image.new("L", size)
    for box, colour, number in (((10, 10, 22, 30), (200, 0, 0), 1), ((28, 10, 42, 30), (0, 200, 0), 2)):
        image.paste(colour, box)
        who.paste(number, box)
    roles = [Role(6, True, (True, False)), Role(8, True, (False, True))]
    scene = stage(Plain(), roles, np.random.default_rng(5), 30, 40, Setting(image, who))
    assert [set(np.unique(m)) for m in scene.masks] == [{0, 6}, {0, 8}]
    for label, colour in ((6, (200, 0, 0)), (8, (0, 200, 0))):
        assert (np.median(scene.frames[scene.masks == label], axis=0) == colour).all()
