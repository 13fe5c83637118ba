import math
import wave

import av
import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from avseg.errors import DataError, MediaError
from avseg.media.sound import Block, Sound, read_sound, silence, sound_blocks, sound_until, write_wave
from avseg.mel import log_mel_at, mono16k

TIMES = [0.1, 0.5, 0.51, 1.3333, 2.0, 2.9, 7.0]


def noise(seconds, rate, channels=1):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, int(seconds * rate))).astype(np.float32)


def blocks(samples, rate, start=0.0, jitter=0.0, size=1000):
    random = np.random.default_rng(1)
    for first in range(0, len(samples), size):
        yield Block(start + first / rate + random.uniform(-jitter, jitter), rate, samples[first : first + size])


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 44_101])
def test_windows_equal_resampled_whole_track(rate):
    wave = noise(3, rate)[0]
    sound = Sound(blocks(wave, rate, jitter=0.0005))
    expected = log_mel_at(mono16k(wave, rate), torch.tensor(TIMES, dtype=torch.float64))
    torch.testing.assert_close(torch.stack([sound.log_mel_at(t) for t in TIMES]), expected, atol=2e-5, rtol=1e-5)


def test_track_starts_at_its_time_stamp():
    wave = noise(2, 16_000)[0]
    late, early = Sound(blocks(wave, 16_000, start=1.25)), Sound(blocks(wave, 16_000, start=-0.3))
    expected = log_mel_at(torch.from_numpy(wave), torch.tensor([0.75]))[0]
    torch.testing.assert_close(late.log_mel_at(2.0), expected)
    torch.testing.assert_close(early.log_mel_at(0.45), expected)
    assert silence().log_mel_at(0.5).unique().item() == pytest.approx(math.log(0.01))


def test_gap_in_time_stamps_is_silence():
    wave = noise(1, 16_000)[0]
    gappy = Sound(iter([*blocks(wave, 16_000), *blocks(wave, 16_000, start=500.0)]))
    assert gappy.waveform_at(250.0).abs().max() == 0
    after = gappy.waveform_at(500.6)
    np.testing.assert_allclose(after[:14_200].numpy(), wave[1_800:], atol=1e-6)


def test_decreasing_time_stamps_are_ignored():
    wave = noise(3, 16_000)[0]
    jump = [b._replace(time=b.time if i < 20 else 0.0) for i, b in enumerate(blocks(wave, 16_000))]
    torch.testing.assert_close(Sound(iter(jump)).waveform_at(2.0), torch.from_numpy(wave[32_000 - 7800 :][:15_600]))


def test_memory_is_constant():
    rate = 48_000
    sound = Sound(Block(k * 0.1, rate, np.zeros(4800, np.float32)) for k in range(20_000))
    for time in range(60):
        sound.log_mel_at(float(time))
        assert sum(len(samples) for _, samples in sound._held) < 2 * rate
    sound.finish()
    assert sound.end == pytest.approx(2_000)
    assert not sound._held


def test_silent_below_minus_80_db():
    quiet, loud = Sound(blocks(np.full(16_000, 5e-5, np.float32), 16_000)), Sound(blocks(noise(1, 16_000)[0], 16_000))
    for sound in quiet, loud:
        sound.log_mel_at(0.5)
    assert quiet.silent
    assert not loud.silent


def test_change_of_sample_rate_raises():
    mixed = Sound(iter([*blocks(noise(1, 16_000)[0], 16_000), *blocks(noise(1, 8_000)[0], 8_000, start=1.0)]))
    with pytest.raises(MediaError, match="from 16000 to 8000 Hz"):
        mixed.waveform_at(1.0)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.mkv", "flac", 44_100, 1),
        ("a.mkv", "pcm_s16le", 8_000, 2),
        ("a.mkv", "pcm_u8", 16_000, 1),
        ("a.mkv", "pcm_f32le", 48_000, 6),
        ("a.mp4", "aac", 48_000, 6),
        ("a.webm", "libopus", 48_000, 2),
    ],
)
def test_sound_time_for_every_codec_and_layout(make_video, name, codec, rate, channels):
    wave = np.zeros((channels, 2 * rate), np.float32)
    wave[:, round(1.2 * rate) : round(1.3 * rate)] = 0.8 * np.sin(np.arange(round(0.1 * rate)) * 440 * 6.28 / rate)
    video = "libvpx" if name.endswith("webm") else "libx264"
    path = make_video(name, codec=video, sound=wave, rate=rate, sound_codec=codec, sound_start=0.5)
    waveform = Sound(sound_blocks(path)).waveform_at(
        1.75
    )  # from 1.2625 s to 2.2375 s; the beep lasts from 1.7 s to 1.8 s
    loud = torch.nonzero(waveform.abs() > 0.1)
    assert loud[0].item() / 16_000 + 1.2625 == pytest.approx(1.7, abs=0.012)
    assert loud[-1].item() / 16_000 + 1.2625 == pytest.approx(1.8, abs=0.012)
    assert waveform.abs().max() == pytest.approx(0.8, abs=0.12)


def test_channels_are_averaged_like_mono16k(make_video):
    wave = noise(1, 16_000, channels=6)
    path = make_video(sound=wave, rate=16_000, sound_codec="pcm_f32le")
    torch.testing.assert_close(Sound(sound_blocks(path)).waveform_at(0.5), mono16k(wave, 16_000)[200:15_800])


def test_no_blocks_without_audio_track(make_video):
    assert list(sound_blocks(make_video())) == []


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (16_000, 1), (48_000, 6)])
@pytest.mark.parametrize("end", [1.7, 5.0])
def test_sound_until_equals_start_of_track(make_video, rate, channels, end):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, round(3.1 * rate))).astype(np.float32)
    path = make_video("clip.mkv", sound=noise, rate=rate)
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
    track = np.concatenate([b if len(b) == channels else b.reshape(-1, channels).T for b in blocks], 1)
    scale = 1.0 if track.dtype.kind == "f" else 2.0 ** (8 * track.dtype.itemsize - 1)
    whole = resample_poly(track.mean(0, dtype=np.float64) / scale, 16_000, rate)
    waveform = sound_until(path, end).numpy()
    assert len(waveform) == min(round(end * 16_000), len(whole))
    np.testing.assert_allclose(waveform, whole[: len(waveform)], atol=1e-5)


def test_sound_until_ends_with_the_track(make_video, make_beep, monkeypatch):
    read, times = Sound.waveform_at, []
    monkeypatch.setattr(Sound, "waveform_at", lambda sound, time: times.append(time) or read(sound, time))
    assert len(sound_until(make_video("clip.mkv", sound=make_beep(2, 0.5, 1)), 600.0)) == 32_000
    assert max(times) < 4  # memory is proportional to the track, not to a time that a label states


def test_sound_until_keeps_time_offset(make_video, make_beep):
    path = make_video("clip.mkv", sound=make_beep(2, 0.5, 1), sound_start=0.25)
    loud = np.flatnonzero(np.abs(sound_until(path, 2.0).numpy()) > 0.01)
    assert loud[[0, -1]] / 16_000 == pytest.approx([0.75, 1.25], abs=0.003)


def test_video_without_audio_raises(make_video):
    path = make_video("mute.mp4")
    with pytest.raises(MediaError, match=r"mute\.mp4 has no sound track: .*leave this video out"):
        sound_until(path, 1.0)


def save(path, channels, rate=16_000):
    """Write (channels, n) samples as 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, rate, 0, "NONE", ""))
        file.writeframes((channels.T * 32767).round().astype("<i2").tobytes())
    return path


def test_read_sound_equals_written_samples(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)[None]
    assert np.abs(read_sound(save(tmp_path / "a.wav", tone)) - tone[0]).max() < 1e-4
    assert len(read_sound(save(tmp_path / "b.wav", np.zeros((1, 22_050)), rate=44_100))) == 8000


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path, channels):
    levels = np.arange(channels) * 0.1
    path = save(tmp_path / "a.wav", np.repeat(levels[:, None], 800, 1))
    assert read_sound(path) == pytest.approx(np.full(800, levels.mean()), abs=1e-4)


def test_write_wave_clips_samples(tmp_path):
    samples = torch.linspace(-1.5, 1.5, 301)
    write_wave(tmp_path / "a.wav", samples)
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav"), samples.clamp(-1, 1).numpy(), atol=1e-4)


def test_file_without_audio_raises(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .* as audio"):
        read_sound(tmp_path / "missing.wav")
