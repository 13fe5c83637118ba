import numpy as np
import pytest

from avseg.synthesis.script import write_script


def scripts(variant, seen=range(1, 13), audible=range(1, 13), seconds=5, **ambiguity):
    return [write_script(np.random.default_rng(k), variant, seen, audible, seconds, **ambiguity) for k in range(300)]


def test_s4_has_one_visible_continuous_source():
    for roles in scripts("s4"):
        voices = [r for r in roles if any(r.sounds)]
        assert len(voices) == 1
        assert voices[0].seen
        assert all(voices[0].sounds)


@pytest.mark.parametrize("variant", ["ms3", "avss"])
def test_ms3_has_switching_simultaneous_silent_and_hidden_sources(variant):
    many = scripts(variant)
    sounds = [np.array([r.sounds for r in roles]) for roles in many]
    assert sum((s.any(1) & ~s.all(1)).any() for s in sounds) > 100  # switches
    assert sum((s.sum(0) > 1).any() for s in sounds) > 60  # at once
    assert sum(not s.any() for s in sounds) > 5  # silence
    assert sum(any(not r.seen for r in roles) for roles in many) > 30  # off screen
    for roles in many:
        seen = [r for r in roles if r.seen]
        assert 1 <= len(seen) <= 4
        assert len(seen) == 1 or any(not any(r.sounds) for r in seen)
        assert all(any(r.sounds) for r in roles if not r.seen)


@pytest.mark.parametrize("variant", ["s4", "ms3", "avss"])
def test_classes_are_distinct_and_all_occur(variant):
    many = scripts(variant)
    assert all(len({r.label for r in roles}) == len(roles) for roles in many)
    assert {r.label for roles in many for r in roles if r.seen and any(r.sounds)} == set(range(1, 13))


@pytest.mark.parametrize("variant", ["s4", "ms3"])
def test_labels_without_sound_are_silent_and_without_image_hidden(variant):
    for roles in scripts(variant, seen=(1, 2, 3), audible=(3, 4)):
        for role in roles:
            assert role.label in ((1, 2, 3) if role.seen else (3, 4))
            assert not any(role.sounds) or role.label in (3, 4)


def test_clip_of_one_second():
    assert all(len(r.sounds) == 1 for variant in ("s4", "ms3") for roles in scripts(variant, seconds=1) for r in roles)


@pytest.mark.parametrize("variant", ["s4", "ms3"])
def test_given_cast_is_visible(variant):
    for k in range(100):
        roles = write_script(np.random.default_rng(k), variant, [2, 5], [5, 7, 9], 4, [2, 5, 9])
        assert sorted(r.label for r in roles if r.seen) == [2, 5, 9]
        assert {r.label for r in roles if any(r.sounds)} <= {5, 7}  # 9 is visible, but not in ``seen``
        assert not any(r.seen for r in roles if r.label == 7)


def test_labels_without_sound_are_a_minority():
    many = scripts("ms3", seen=range(1, 60), audible=(1, 2, 3))
    assert all(any(r.label <= 3 for r in roles if r.seen) for roles in many)
    assert any(r.label > 3 for roles in many for r in roles)


PAIRS = ((2, 3), (6, 8))


@pytest.mark.parametrize("variant", ["s4", "ms3", "avss"])
def test_spatial_pair_has_sounding_then_silent_object(variant):
    many = scripts(variant, ambiguity="spatial", alike=PAIRS)
    for first, second, *others in many:
        assert tuple(sorted((first.label, second.label))) in PAIRS
        assert first.seen
        assert second.seen
        assert any(first.sounds)
        assert not any(second.sounds)
        assert not {first.label, second.label} & {r.label for r in others}
        assert len(others) - sum(not r.seen for r in others) <= 2
        assert len({r.label for r in others}) == len(others)
    assert {first.label for first, *_ in many} == {2, 3, 6, 8}  # either of the two may be the sounding one
    assert {len([r for r in roles if r.seen]) for roles in many} == {2, 3, 4}
    if variant == "s4":
        assert all(all(roles[0].sounds) and not any(any(r.sounds) for r in roles[1:]) for roles in many)
    else:
        assert sum(not all(first.sounds) for first, *_ in many) > 100
        assert sum(any(any(r.sounds) for r in roles[2:] if r.seen) for roles in many) > 50


@pytest.mark.parametrize("seconds", [2, 3, 5, 10])
def test_temporal_sounds_change_at_half_of_the_seconds(seconds):
    many = scripts("ms3", seconds=seconds, ambiguity="temporal")
    voices = [np.array(r.sounds) for roles in many for r in roles if any(r.sounds)]
    changes = np.array([np.diff(v.astype(int)) != 0 for v in voices])
    assert changes.any(1).all()
    rest = 0.5 ** (seconds - 1)  # samples without a change get one
    assert changes.mean() == pytest.approx(0.5 + rest / (seconds - 1), abs=0.04)
    assert (changes.mean(0) > 0.3).all()
    assert all(any(r.seen and any(r.sounds) for r in roles) for roles in many)
    assert 0.4 < np.mean([v[0] for v in voices]) < 0.6


def test_temporal_clips_keep_other_statistics():
    many = scripts("ms3", ambiguity="temporal")
    assert {sum(r.seen for r in roles) for roles in many} == {1, 2, 3, 4}
    assert sum(any(not r.seen for r in roles) for roles in many) > 30
    assert max(sum(any(r.sounds) for r in roles if r.seen) for roles in many) == 3
