"""The distillation of the audio encoder: windows, start, loss, resumption and report, with a small teacher."""

import csv
import dataclasses
import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import distill_audio
import sound_mixing
from avseg.checkpoints.state import read_state
from avseg.errors import CheckpointError, DataError
from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE, log_mel
from avseg.nn.mobile_audio import MobileAudio
from distill_audio import Settings, Shard, Student, Training
from sound_agreement import agreement, average_precision
from sound_library import Entry, Folder, Library, cached, instruments, phrase, recordings
from sound_mixing import Mixer, Mixing
from yamnet import Outputs, dequantise, network


def write_wave(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def tone(hertz: float, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Two classes of tones: two seconds long, and shorter than a window."""
    for i in range(4):
        write_wave(tmp_path / f"sounds/low/{i}.wav", tone(200 + 20 * i, 2.0))
        write_wave(tmp_path / f"sounds/high/{i}.wav", tone(2000 + 100 * i, 0.3))
    return cached(tmp_path / "cache", recordings(tmp_path, [Folder("sounds")]))


class SmallTeacher(nn.Module):
    """Linear functions of the mean over time of the log-mel patch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.classify = nn.Linear(64, 1024), nn.Linear(1024, 521)

    @torch.inference_mode()
    def forward(self, mel: Tensor) -> Outputs:
        embedding = self.embed(mel.mean((1, 2))).relu()
        return Outputs(embedding.numpy(), self.classify(embedding).numpy())


def small_trunk(mel: Tensor) -> Tensor:
    """Pool the patch to the shape of the maps (N, 512, 6, 4), every channel times another factor."""
    return nn.functional.adaptive_avg_pool2d(mel, (6, 4)) * torch.linspace(-0.3, 0.3, 512)[:, None, None]


def test_a_library_holds_the_sounds_it_was_made_of(library: Library, tmp_path: Path) -> None:
    assert [entry.label for entry in library.entries] == ["high"] * 4 + ["low"] * 4
    np.testing.assert_allclose(library.wave(library.entries[-1]), tone(260, 2.0), atol=1e-4)
    again = cached(tmp_path / "cache", iter([]))
    assert again.entries == library.entries
    assert np.array_equal(again.samples, library.samples)


def test_sounds_of_one_source_are_on_one_side(tmp_path: Path) -> None:
    names = [f"{i}.wav" for i in range(60)]
    for name in names:
        write_wave(tmp_path / "sounds/low" / name, tone(300, 0.05))
    with (tmp_path / "sounds.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "from"])
        rows.writerows([f"any/sounds/low/{name}", f"source {i // 2}"] for i, name in enumerate(names))
    made = recordings(tmp_path, [Folder("sounds", "sounds.csv", "from")])
    library = cached(tmp_path / "cache", made)
    held, trained = (library.part(held_out=side) for side in (True, False))
    groups = [{entry.group for entry in part.entries} for part in (held, trained)]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {f"source {i}" for i in range(30)}
    assert 0 < len(held.entries) < len(trained.entries)


@pytest.mark.parametrize(
    ("manifest", "message"), [("none.csv", "no manifest"), ("bad.csv", "no columns 'file' and 'from'")]
)
def test_manifests_that_cannot_be_used(tmp_path: Path, manifest: str, message: str) -> None:
    write_wave(tmp_path / "sounds/low/0.wav", tone(300, 0.1))
    (tmp_path / "bad.csv").write_text("name,from\na,b\n")
    with pytest.raises(DataError, match=message):
        list(recordings(tmp_path, [Folder("sounds", manifest, "from")]))


def test_notes_fit_the_clip() -> None:
    for seed in range(20):
        notes = phrase(np.random.default_rng(seed), drums=seed % 2 == 1)
        assert notes
        assert all(0 <= n.start < 4 and n.length > 0 and 35 <= n.pitch <= 90 and 50 <= n.velocity < 128 for n in notes)


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SoundFont at"):
        next(instruments(tmp_path / "none.sf2", 1, 0))
    with pytest.raises(CheckpointError, match="no TensorFlow Lite file at"):
        network(tmp_path / "yamnet.tflite")


def test_windows_are_finite_repeatable_and_as_loud_as_requested(library: Library) -> None:
    mixer = Mixer(library, Mixing(quiet=0.5, empty=0.3))
    windows = [mixer.window(np.random.default_rng([3, i])) for i in range(150)]
    assert all(w.shape == (PATCH_SAMPLES,) and w.dtype == np.float32 and np.isfinite(w).all() for w in windows)
    assert np.array_equal(windows[5], mixer.window(np.random.default_rng([3, 5])))
    peaks = np.array([np.abs(w).max() for w in windows])
    assert (peaks == 0).any()
    loud = peaks[peaks > 0]
    assert loud.max() <= 1 + 1e-6
    assert loud.min() >= 10 ** (-80 / 20) * 0.99
    assert 0.2 < (loud < 10 ** (-40 / 20)).mean() < 0.8


def test_a_library_without_instruments_serves_them_with_recordings(library: Library) -> None:
    mixer = Mixer(library, Mixing(1.0, *[0.0] * 7))
    window = mixer.window(np.random.default_rng(0))
    assert np.abs(window).max() > 0.009


def test_a_sound_is_added_at_its_level() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4000))
    rest = sound_mixing.add(first, second, -10.0) - first
    assert np.mean(rest**2) / np.mean(first**2) == pytest.approx(0.1)
    assert np.array_equal(sound_mixing.add(np.zeros(4), np.ones(4), 0.0), np.ones(4))


def test_speed_moves_the_pitch() -> None:
    faster = sound_mixing.change_speed(tone(440, 1.0).astype(np.float32), 1.25)
    assert len(faster) == pytest.approx(SAMPLE_RATE / 1.25, abs=1)
    assert np.abs(np.fft.rfft(faster)).argmax() * SAMPLE_RATE / len(faster) == pytest.approx(550, abs=1)
    assert len(sound_mixing.change_speed(np.zeros(0, np.float32), 1.25)) == 0


def test_crops_hold_the_sound() -> None:
    rng = np.random.default_rng(0)
    long = np.arange(40000, dtype=np.float32)
    assert np.array_equal(np.diff(sound_mixing.crop(long, rng)), np.ones(PATCH_SAMPLES - 1))
    short = np.ones(1000, np.float32)
    counts = {int(sound_mixing.crop(short, rng).sum()) for _ in range(30)}
    assert counts == {1000, PATCH_SAMPLES}


def test_noises_fall_by_0_3_and_6_db_per_octave() -> None:
    slopes = set()
    for seed in range(12):
        spectrum = np.abs(np.fft.rfft(sound_mixing.coloured_noise(np.random.default_rng(seed), 32000))) ** 2
        low, high = spectrum[1000:2000].mean(), spectrum[8000:16000].mean()
        slopes.add(round(10 * np.log10(low / high) / 3))
    assert slopes == {0, 3, 6}


def test_reverberation_rings_after_the_sound_and_filters_change_the_spectrum() -> None:
    click = np.zeros(8000)
    click[100] = 1
    wet = sound_mixing.reverberate(click, np.random.default_rng(0))
    assert not np.abs(wet[:90]).max() > 1e-9
    assert np.sum(wet[100:900] ** 2) > np.sum(wet[900:1700] ** 2) > 0
    noise = np.random.default_rng(1).standard_normal(16000)
    gains = [
        np.abs(np.fft.rfft(sound_mixing.equalise(noise, np.random.default_rng(i)))) / np.abs(np.fft.rfft(noise))
        for i in range(10)
    ]
    assert all(10 ** (-12 / 20) - 1e-6 <= g[:1000].max() <= 10 ** (12 / 20) + 1e-6 for g in gains)
    assert any(g[7900] < 0.2 and g[500] == pytest.approx(1) for g in gains)


def test_dequantised_weights() -> None:
    values = np.array([[1, -2], [3, 4]], np.int8)
    one = dequantise(values, np.array([0.5], np.float32), np.array([1], np.int32), 0)
    assert one.tolist() == [[0.0, -1.5], [1.0, 1.5]]
    rows = dequantise(values, np.array([1.0, 10.0], np.float32), np.array([0, 3], np.int32), 0)
    assert rows.tolist() == [[1.0, -2.0], [0.0, 10.0]]
    columns = dequantise(values, np.array([1.0, 10.0], np.float32), np.array([0, 0], np.int32), 1)
    assert columns.tolist() == [[1.0, -20.0], [3.0, 40.0]]
    plain = dequantise(np.array([1.5], np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), 0)
    assert plain.tolist() == [1.5]


def test_ridge_without_penalty_is_least_squares() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(50, 4), torch.randn(3, 4), torch.randn(3)
    found = distill_audio.ridge(x, x @ weight.T + bias, 1e-9)
    torch.testing.assert_close(found[0], weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], bias, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_start_keeps_the_channels_that_matter() -> None:
    torch.manual_seed(0)
    teacher = MobileAudio(1024).eval()
    mel = torch.randn(40, 1, 96, 64)
    with torch.no_grad():
        teacher.convolutions()[-1].bias += 5  # no channel is zero for all inputs
        teacher.scores.weight[:, 1::2] = 0  # odd channels are of no use
        embedding = teacher(mel)
        logits = teacher.scores(embedding)
        student = distill_audio.truncate(teacher, Shard(teacher.features[:51](mel), embedding, logits)).eval()
        torch.testing.assert_close(student.net(mel), embedding[:, 0::2])
        predicted = student(mel)
        torch.testing.assert_close(student.late(teacher.features[:51](mel)), predicted)
    assert (predicted[1] - logits).square().mean() < 0.05 * logits.var()


def test_the_loss_is_zero_for_the_teacher_and_as_defined() -> None:
    torch.manual_seed(0)
    shard = Shard(torch.zeros(4, 512, 6, 4), torch.rand(4, 1024), torch.randn(4, 521))
    s = Settings(train=[], teacher="")
    same = distill_audio.loss((shard.embedding, shard.logits), shard, s)
    assert same["scores"].item() == pytest.approx(0, abs=1e-4)
    assert same["embedding"].item() == pytest.approx(0, abs=1e-5)
    other = torch.rand(4, 1024), torch.randn(4, 521)
    found = distill_audio.loss(other, shard, s)
    p, q = shard.logits.double().sigmoid(), other[1].double().sigmoid()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert found["scores"].item() == pytest.approx(((1 + 10 * p) * divergence).sum().item() / 4, rel=1e-4)
    a, b = other[0].double(), shard.embedding.double()
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    error = ((a - b) ** 2).mean() / b.var(0).mean()
    assert found["embedding"].item() == pytest.approx(2 * (1 - cosine.mean() + error).item(), rel=1e-4)


def settings_for(out: Path) -> Settings:
    return Settings(
        train=[], teacher="", out=str(out), shards=2, shard=9, batch=4, epochs=2, warmup=2, save_every=3, seed=5
    )


@pytest.mark.slow
def test_training_resumes_where_it_stopped(library: Library, tmp_path: Path) -> None:
    def training(out: str) -> Training:
        s = settings_for(tmp_path / out)
        (tmp_path / out).mkdir(exist_ok=True)
        shards = distill_audio.prepare(s, Mixer(library, s.mixing), small_trunk, SmallTeacher())
        torch.manual_seed(0)
        found = Training(s, Student(), shards)
        found.resume()
        return found

    whole = training("whole")
    before = {name: v.clone() for name, v in whole.student.state_dict().items()}
    whole.run()
    assert whole.step == whole.steps == 8
    fixed = {n for n, v in whole.student.state_dict().items() if torch.equal(v, before[n])}
    assert fixed == {
        f"net.features.{i}.{kind}"
        for i, layer in enumerate(whole.student.net.features[:51])
        if isinstance(layer, nn.Conv2d)
        for kind in ("weight", "bias")
    }
    training("parts").run(until=3)
    rest = training("parts")
    assert rest.step == 3
    rest.run()
    assert rest.step == 8
    for name, value in whole.averaged().state_dict().items():
        torch.testing.assert_close(rest.averaged().state_dict()[name], value, msg=name)
    saved = read_state(tmp_path / "parts" / distill_audio.WEIGHTS)
    net = MobileAudio()
    net.load_state_dict(saved)
    assert all(torch.equal(saved[k], v) for k, v in rest.averaged().net.state_dict().items())


@pytest.mark.slow
def test_training_lowers_the_loss(library: Library, tmp_path: Path) -> None:
    s = dataclasses.replace(settings_for(tmp_path), shards=1, shard=16, batch=8, epochs=12, warmup=1, ema=0.5)
    shards = distill_audio.prepare(s, Mixer(library, s.mixing), small_trunk, SmallTeacher())
    torch.manual_seed(0)
    training = Training(s, Student(), shards)
    shard = distill_audio.read_shard(shards[0])

    def score() -> float:
        with torch.no_grad():
            return sum(
                term.item() for term in distill_audio.loss(training.averaged().late(shard.maps), shard, s).values()
            )

    first = score()
    training.run()
    assert score() < 0.5 * first


def test_shards_are_made_of_their_seed_and_never_twice(library: Library, tmp_path: Path) -> None:
    mixer = Mixer(library, Mixing())
    for name in ("a.npz", "b.npz"):
        distill_audio.write_shard(tmp_path / name, mixer, small_trunk, SmallTeacher(), (0, 0, 1), 3)
    a, b = (distill_audio.read_shard(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert torch.equal(a.maps, b.maps)
    window = mixer.window(np.random.default_rng((0, 0, 1)))
    mel = log_mel(np.pad(window, (0, 160)), SAMPLE_RATE)
    torch.testing.assert_close(a.maps[:1], small_trunk(mel), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(a.logits[:1].numpy(), SmallTeacher()(mel).logits, rtol=1e-3, atol=1e-3)
    distill_audio.write_shard(tmp_path / "a.npz", mixer, small_trunk, SmallTeacher(), (0, 0, 2), 3)
    assert torch.equal(distill_audio.read_shard(tmp_path / "a.npz").maps, a.maps)


def test_windows_for_the_report() -> None:
    samples = np.arange(3 * PATCH_SAMPLES, dtype=np.int16)
    library = Library(samples, [Entry("a", "a", 0, 2 * PATCH_SAMPLES + 100), Entry("b", "b", 0, 50)])
    waves, labels = distill_audio.windows(library)
    assert labels == ["a", "a", "b"]
    assert all(len(w) == PATCH_SAMPLES for w in waves)
    assert np.count_nonzero(waves[2]) == 49


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx((1 + 2 / 3) / 2)


def test_agreement() -> None:
    rng = np.random.default_rng(0)
    theirs = Outputs(rng.random((20, 1024), np.float32), rng.standard_normal((20, 521)).astype(np.float32))
    same = agreement(theirs, theirs, ["a"] * 15 + ["b"] * 5)
    assert [same[k] for k in ("cosine", "correlation", "top1", "map")] == pytest.approx([1, 1, 1, 1])
    assert same["classes"]["b"] == {"windows": 5, "cosine": 1.0, "top1": 1.0}
    json.dumps(same, allow_nan=False)
    ours = Outputs(theirs.embedding.copy(), theirs.logits.copy())
    ours.embedding[:5] = 0
    ours.logits[:5] *= -1
    other = agreement(ours, theirs)
    assert other["cosine"] == pytest.approx(0.75)
    assert other["top1"] == other["top1_in_top3"] == pytest.approx(0.75)
    assert other["map"] < 1


def test_settings_come_from_the_config() -> None:
    config = Path(__file__).parents[1] / "configs/distill_mobile_audio.yaml"
    assert config.read_text().splitlines()[0] == f"# python benchmarks/distill_audio.py --config configs/{config.name}"
    s = distill_audio.settings(["--config", str(config), "--mixing.noise", "0.7"])
    assert isinstance(s.train[0], Folder)
    assert (s.mixing.noise, s.train[1].group, s.test[0].manifest) == (0.7, "source_url", None)
