import numpy as np
import pytest
from PIL import Image

from avseg.synthesis.sprites.canvas import CutOut
from avseg.synthesis.sprites.similarity import likeness


def thing(boxes, colour=(255, 0, 0), size=(40, 40), upright=True):
    image = Image.new("RGBA", size)
    for box in boxes:
        image.paste((*colour, 255), box)
    return CutOut(image.crop(image.getbbox()), upright=upright)


HOOK = [(0, 0, 10, 40), (0, 30, 30, 40)]
BACKWARD = [(30, 0, 40, 40), (10, 30, 40, 40)]
LYING = [(0, 30, 40, 40), (0, 10, 10, 40)]  # the hook, rotated by 90 degrees


def test_likeness_of_object_and_mirror_image_is_one():
    assert likeness([thing(HOOK)], [thing(HOOK), thing(BACKWARD)])[0] == pytest.approx([1.0, 1.0], abs=0.02)


def test_likeness_ignores_rotation_unless_upright():
    free, lying = thing(HOOK, upright=False), thing(LYING, upright=False)
    assert likeness([free], [lying])[0, 0] > 0.95
    for one, other in ((thing(HOOK), lying), (free, thing(LYING)), (thing(HOOK), thing(LYING))):
        assert likeness([one], [other])[0, 0] < 0.8
    assert likeness([thing(HOOK), free], [lying])[:, 0].tolist() == [
        likeness([one], [lying])[0, 0] for one in (thing(HOOK), free)
    ]


def test_likeness_invariant_to_size_and_position():
    far = thing([(4, 4, 24, 24)], size=(200, 200))
    assert likeness([thing([(0, 0, 12, 12)])], [far])[0, 0] == pytest.approx(1.0, abs=0.05)


def test_likeness_is_geometric_mean_of_outline_and_colour_overlap():
    # A square and a bar of the same area, 2 : 1/2, share half a square: IoU 0.5 / 1.5.
    square, bar = thing([(0, 0, 20, 20)]), thing([(0, 0, 40, 10)])
    assert likeness([square], [bar])[0, 0] == pytest.approx(np.sqrt(0.5 / 1.5), abs=0.05)
    half = thing([(0, 0, 20, 20)])
    half.image.paste((0, 0, 255, 255), (0, 0, 20, 5))  # a quarter of it
    assert likeness([square], [half])[0, 0] == pytest.approx(np.sqrt(0.75), abs=0.02)
    assert likeness([square], [thing([(0, 0, 20, 20)], (0, 255, 0))])[0, 0] == 0.0


def test_likeness_compares_all_pairs():
    some = [thing(HOOK), thing([(0, 0, 20, 20)]), thing(HOOK, (200, 200, 0))]
    others = [thing(HOOK), thing([(0, 0, 40, 10)])]
    table = likeness(some, others)
    assert table.shape == (3, 2)
    assert (table == [[likeness([a], [b])[0, 0] for b in others] for a in some]).all()
