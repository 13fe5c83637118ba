import pytest

from avseg.prediction.objects import LEAST, NamedObject, best, highest


def test_highest_keeps_three_names_above_a_score():
    found = highest(("dog", "cat", "bird", "car", "bus"), (0.1, 0.5004, 0.3, 0.01, 0.2))
    assert found == (("cat", 0.5), ("bird", 0.3), ("bus", 0.2))
    assert highest(("dog", "cat"), (0.0, 0.01)) == ()


def test_best_is_the_highest_mean_and_frames_without_a_name_count():
    frames = [
        (NamedObject("dog", 0.9),),
        (NamedObject("cat", 0.6), NamedObject("dog", 0.1)),
        (NamedObject("cat", 0.6),),
    ]
    assert best(frames) == ("cat", pytest.approx(0.4))
    assert best([*frames, (), ()]) == ("cat", pytest.approx(0.24))
    assert best([*frames, (), (), (), ()]) is None  # 1.2 / 7 is below LEAST
    assert best([*frames, (), (), (), ()], least=0.1) == ("cat", pytest.approx(0.171))
    assert LEAST == 0.2


def test_nothing_has_no_name():
    assert best([]) is None
    assert best([(), ()]) is None
