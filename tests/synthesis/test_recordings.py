import wave

import numpy as np
import pytest

from avseg.errors import DataError
from avseg.synthesis.recordings import find_sounds, looped_waveform, waveform_without_pauses


def write(path, samples, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((np.asarray(samples) * 32767).round().astype("<i2").tobytes())
    return path


def tone(seconds, level=0.5, rate=16000):
    return level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def test_only_long_pauses_are_shortened(tmp_path):
    pause = np.zeros(16000)
    long = waveform_without_pauses(
        write(tmp_path / "a.wav", np.concatenate([pause, tone(0.5), pause, tone(0.5), pause]))
    )
    assert len(long) == 16000 + 2 * 3200
    short = waveform_without_pauses(write(tmp_path / "b.wav", np.concatenate([tone(0.5), pause[:2400], tone(0.5)])))
    assert len(short) == 16000 + 2400
    assert np.abs(long).max() == pytest.approx(1.0)


def test_every_second_has_sound_after_pauses_are_removed(tmp_path):
    path = write(tmp_path / "a.wav", np.concatenate([np.zeros(40000), tone(0.2, 0.1), np.zeros(30000)]))
    sound = looped_waveform(path, np.random.default_rng(0), 5 * 16000)
    assert len(sound) == 5 * 16000
    assert (np.abs(sound.reshape(10, -1)).max(1) > 0.9).all()


def test_recording_shorter_than_a_window(tmp_path):
    assert len(looped_waveform(write(tmp_path / "a.wav", tone(0.01)), np.random.default_rng(0), 16000)) == 16000


def test_folders_are_classes(tmp_path):
    for name in ("dog/a.wav", "dog/more/b.wav", "cat/c.wav"):
        write(tmp_path / name, tone(0.1))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("x")
    found = find_sounds(tmp_path)
    assert {name: [p.name for p in paths] for name, paths in found.items()} == {
        "cat": ["c.wav"],
        "dog": ["a.wav", "b.wav"],
    }


def test_missing_or_silent_sounds_raise(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        find_sounds(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no sounds in"):
        find_sounds(tmp_path)
    with pytest.raises(DataError, match="is silent"):
        waveform_without_pauses(write(tmp_path / "a.wav", np.zeros(9000)))
    with pytest.raises(DataError, match="is silent"):
        waveform_without_pauses(write(tmp_path / "b.wav", np.zeros(0)))
