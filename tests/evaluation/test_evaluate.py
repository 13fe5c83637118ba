"""Tests of evaluation with models that use or ignore the audio, on clips with known pixels."""

import dataclasses
import io
import json
import math

import pytest
import torch
from rich.console import Console

from avseg.data import AVSDataset, Sample
from avseg.errors import CheckpointError, ConfigError, DataError
from avseg.evaluation import evaluate as evaluation
from avseg.evaluation import negative_audio
from avseg.evaluation.evaluate import evaluate, evaluate_checkpoint, parts_table, table
from avseg.interface import AVSModel, Clip, Prediction, Target

HEIGHT, STRIPE = 6, 2
LEVEL = 20.0
"""Audio level above that of noise, so that noise matches no clip."""


class Stripes(AVSDataset):
    """Data set in which clip i has audio level LEVEL + i, and stripe i of the image is sounding."""

    def __init__(self, clips=6, class_names=("background", "sounding"), lengths=(3,), padded_to=0, embeddings=False):
        self.clips, self.class_names, self.lengths = clips, class_names, lengths
        self.padded_to, self.embeddings = padded_to, embeddings

    def __len__(self):
        return self.clips

    def __getitem__(self, index):
        length = self.lengths[index % len(self.lengths)]
        frames = max(length, self.padded_to)
        valid = torch.arange(frames)[None] < length
        masks = torch.zeros(1, frames, HEIGHT, self.clips * STRIPE).long()
        masks[:, :length, :, index * STRIPE : (index + 1) * STRIPE] = index % max(self.classes - 1, 1) + 1
        audio = torch.full((1, frames, 1, 96, 64), LEVEL + index)
        if self.embeddings:
            audio = torch.full((1, frames, 8), LEVEL + index)
        clip = Clip(torch.zeros(1, frames, 3, HEIGHT, self.clips * STRIPE), audio, valid)
        return Sample(clip, Target(masks, valid.clone()), [f"{'even' if index % 2 == 0 else 'odd'}/{index}"])


class Named(Stripes):
    """The same data set with the number of the stripe as label."""

    category_names = ("background", *map(str, range(6)))

    def __getitem__(self, index):
        clip, target, names = super().__getitem__(index)
        return Sample(clip, Target(target.masks * (index + 1), target.labelled), names)


class Reader(AVSModel):
    """Model that predicts the stripe of the audio level, changed by ``hear`` if given."""

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Empty settings."""

    paper = "none"

    def __init__(self, hear=lambda level: level, classes=1):
        super().__init__(self.Config(), classes)
        self.hear = hear
        self.seen = []
        self.dropout = torch.nn.Dropout(0.9)
        self.frozen = torch.nn.BatchNorm2d(3).eval()

    def forward(self, clip, target=None, *, maps=False):
        assert target is None
        self.seen.append(clip)
        level = self.hear(clip.audio.flatten(2).mean(2)).round()
        stripe = torch.arange(clip.frames.shape[-1]) // STRIPE + LEVEL
        marked = (stripe == level[..., None]).float()[:, :, None, None].expand(-1, -1, -1, HEIGHT, -1)
        marked = self.dropout(marked)
        if self.classes == 1:
            return Prediction(20 * marked - 10)
        label = (level - LEVEL) % (self.classes - 1) + 1
        chosen = torch.arange(self.classes) == label[..., None]
        logits = marked * chosen[..., None, None]
        logits[:, :, :1] = 0.5
        return Prediction(logits)

    def loss(self, prediction, target):
        return {}


def blind(classes=1):
    return Reader(lambda level: torch.full_like(level, LEVEL + 1), classes)


@pytest.fixture(scope="module")
def heard():
    return evaluate(Reader(), Stripes(), progress=False)


class TestHearing:
    def test_right_audio_gives_the_right_mask(self, heard):
        assert heard["scores"]["avsbench"]["j"] == pytest.approx(1, abs=1e-6)
        assert heard["scores"]["avsbench"]["f"] == pytest.approx(1)
        assert heard["marked"] == pytest.approx(1 / 6)
        assert (heard["clips"], heard["frames"], heard["headline"]) == (6, 18, "avsbench/j")

    def test_another_clips_audio_gives_another_mask(self, heard):
        swap = heard["negatives"]["swap"]
        assert swap["scores"]["avsbench"]["j"] == 0
        assert swap["drop"] == pytest.approx(1, abs=1e-6)
        assert swap["overlap"] == 0
        assert swap["changed"] == pytest.approx(2 / 6)
        assert swap["marked"] == pytest.approx(1 / 6)

    @pytest.mark.parametrize("kind", ["silence", "noise"])
    def test_silence_gives_no_mask(self, heard, kind):
        found = heard["negatives"][kind]
        assert found["marked"] == 0
        assert found["scores"]["strict"]["iou"] == 0
        assert found["changed"] == pytest.approx(1 / 6)

    def test_model_without_audio_has_no_drop(self):
        report = evaluate(blind(), Stripes(), progress=False)
        for kind in ("silence", "noise", "swap"):
            found = report["negatives"][kind]
            assert found["scores"] == report["scores"]
            assert (found["drop"], found["changed"], found["overlap"]) == (0, 0, 1)
        assert report["scores"]["avsbench"]["j"] == pytest.approx(1 / 6)

    def test_categories_do_not_change_scores_of_one_class(self, heard):
        assert evaluate(Reader(), Named(), progress=False) == heard

    def test_classes(self):
        names = ("background", "bell", "dog", "rotor")
        report = evaluate(Reader(classes=4), Stripes(class_names=names), progress=False)
        assert report["headline"] == "avsbench_semantic/miou"
        assert report["scores"]["avsbench_semantic"]["miou"] == pytest.approx(1)
        assert set(report["per_class"]) == set(names)
        assert report["per_class"]["dog"]["iou"] == pytest.approx(1)
        assert report["negatives"]["swap"]["scores"]["avsbench_semantic"]["miou_foreground"] == 0
        # Another clip of the same class has another stripe.
        assert report["negatives"]["swap"]["overlap"] == 0


class TestWrongAudio:
    @pytest.mark.parametrize("clips", [2, 3, 7, 64])
    def test_partners_are_all_the_other_clips(self, clips):
        partners = negative_audio.partners(clips)
        assert sorted(partners) == list(range(clips))
        assert all(a != b for a, b in enumerate(partners))
        assert partners == negative_audio.partners(clips)

    def test_negative_audio_has_the_form_of_the_audio(self):
        model = Reader()
        evaluate(model, Stripes(clips=2), progress=False)
        right, silence, noise, swap = (clip.audio for clip in model.seen[:4])
        assert torch.equal(right, torch.full_like(right, LEVEL))
        assert torch.equal(silence, torch.full_like(right, math.log(0.01)))
        assert torch.equal(swap, torch.full_like(right, LEVEL + 1))
        assert noise.std() > 0.1
        assert not torch.equal(noise, model.seen[6].audio), "each clip has noise of its own"

    def test_swapped_audio_is_truncated_or_repeated(self):
        model = Reader()
        evaluate(model, Stripes(clips=2, lengths=(2, 5)), progress=False)
        short, long = model.seen[3].audio, model.seen[7].audio
        assert torch.equal(short, torch.full((1, 2, 1, 96, 64), LEVEL + 1))
        assert torch.equal(long, torch.full((1, 5, 1, 96, 64), LEVEL))

    def test_padding_frames_keep_their_audio(self):
        model = Reader()
        evaluate(model, Stripes(clips=2, lengths=(2,), padded_to=4), progress=False)
        for clip in model.seen[:4]:
            assert torch.equal(clip.audio[:, 2:], model.seen[0].audio[:, 2:])

    def test_embeddings_can_only_be_swapped(self):
        report = evaluate(Reader(), Stripes(embeddings=True), progress=False)
        assert list(report["negatives"]) == ["swap"]

    def test_negatives_false_skips_negative_audio(self):
        report = evaluate(Reader(), Stripes(clips=1), negatives=False, progress=False)
        assert report["negatives"] == {}
        assert report["scores"]["avsbench"]["j"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("batch_size", [2, 4])
def test_batch_size_changes_nothing(classes, batch_size):
    names = tuple("abcd") if classes > 1 else ("background", "sounding")
    data = Stripes(class_names=names, lengths=(3, 1, 2), padded_to=2)
    hear = Reader(lambda level: level.clamp(min=LEVEL + 1), classes)
    one, many = (evaluate(hear, data, batch_size=b, progress=False) for b in (1, batch_size))
    assert json.dumps(_rounded(one)) == json.dumps(_rounded(many))


def _rounded(tree):
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    return round(tree, 10) if isinstance(tree, float) else tree


def test_padding_frames_are_scored_in_one_protocol():
    names = tuple("abcd")
    report = evaluate(Reader(classes=4), Stripes(class_names=names, lengths=(2,), padded_to=4), progress=False)
    assert report["frames"] == 12
    assert report["scores"]["avsbench_semantic"]["miou"] == pytest.approx(1)
    # On padding frames the model predicts a stripe although nothing is labelled.
    assert report["scores"]["avsbench_semantic_padded"]["miou"] < 0.8


def test_only_labelled_frames_are_scored():
    class FirstLabelled(Stripes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            sample.target.labelled[:, 1:] = False
            sample.target.masks[:, 1:] = 1
            return sample

    report = evaluate(Reader(), FirstLabelled(), progress=False)
    assert report["frames"] == 6
    assert report["scores"]["avsbench"]["j"] == pytest.approx(1, abs=1e-6)


def test_predictions_are_scored_at_the_size_of_masks():
    class Original(Stripes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            larger = sample.target.masks.repeat_interleave(2, 2).repeat_interleave(3, 3)
            return sample._replace(target=Target(larger, sample.target.labelled))

    report = evaluate(Reader(), Original(), progress=False)
    assert report["scores"]["avsbench"]["j"] == pytest.approx(1, abs=1e-6)
    assert report["marked"] == pytest.approx(1 / 6)
    assert report["negatives"]["swap"]["scores"]["avsbench"]["j"] == 0


def test_categories_and_clips_add_up_to_the_protocol():
    report = evaluate(Reader(lambda level: level.clamp(max=LEVEL + 2)), Stripes(), progress=False)
    assert {name: c["clips"] for name, c in report["per_category"].items()} == {"even": 3, "odd": 3}
    j = report["scores"]["avsbench"]["j"]
    assert sum(c["j"] for c in report["per_category"].values()) / 2 == pytest.approx(j)
    assert sum(c["right"]["j"] for c in report["per_clip"].values()) / 6 == pytest.approx(j)
    assert report["per_clip"]["even/0"]["right"]["j"] == pytest.approx(1, abs=1e-6)
    assert report["per_clip"]["odd/5"]["right"]["j"] == 0


def test_evaluation_does_not_change_model_or_random_state():
    model = Reader().train()
    model.frozen.eval()
    state = torch.get_rng_state()
    first, second = (evaluate(model, Stripes(), progress=False) for _ in range(2))
    assert first == second
    assert model.training
    assert model.dropout.training
    assert not model.frozen.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_training_modes_are_restored_after_an_error():
    model = Reader(lambda level: level * math.nan).train()
    with pytest.raises(CheckpointError, match=r"NaN for clip 'even/0' \(right audio\)"):
        evaluate(_nan(model), Stripes(), progress=False)
    assert model.training


def _nan(model):
    forward = model.forward
    model.forward = lambda *a, **k: Prediction(forward(*a, **k).logits * math.nan)
    return model


class TestRefuses:
    def test_other_classes(self):
        with pytest.raises(ConfigError, match="the model has 1 classes, the data set 4"):
            evaluate(Reader(), Stripes(class_names=tuple("abcd")))

    def test_classes_of_other_names(self):
        model = Reader(classes=4)
        model.card = {"class_names": ["a", "b", "x", "d"]}
        with pytest.raises(ConfigError, match="the model has 'x' where the data set has 'c'"):
            evaluate(model, Stripes(class_names=tuple("abcd")))

    @pytest.mark.parametrize("device", ["abacus", "cuda:99"])
    def test_missing_device_is_refused(self, device):
        model = Reader()
        model.weight = torch.nn.Parameter(torch.zeros(1))
        with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
            evaluate(model, Stripes(), device=device)

    @pytest.mark.parametrize("setting", [{"batch_size": 0}, {"workers": -1}])
    def test_invalid_numbers_are_refused(self, setting):
        with pytest.raises(ConfigError, match=f"{next(iter(setting))} must be"):
            evaluate(Reader(), Stripes(), **setting)

    @pytest.mark.parametrize(("clips", "negatives"), [(0, False), (1, True)])
    def test_too_few_clips(self, clips, negatives):
        with pytest.raises(DataError, match=f"the data set has {clips}"):
            evaluate(Reader(), Stripes(clips=clips), negatives=negatives)


def rendered(shown):
    text = io.StringIO()
    Console(file=text, width=160).print(shown)
    return text.getvalue()


class Doubtful(AVSModel):
    """Model with uniform foreground probability; its uncertainty is high on every even stripe."""

    Config, paper = Reader.Config, "none"

    def __init__(self, classes, uncertain):
        super().__init__(self.Config(), classes)
        self.uncertain = uncertain

    def forward(self, clip, target=None, *, maps=False):
        b, t, _, h, w = clip.frames.shape
        logits = torch.zeros(b, t, self.classes, h, w)
        logits[:, :, -1] = math.log(3.0)
        even = (torch.arange(w // STRIPE) % 2 == 0).float().repeat_interleave(STRIPE)
        own = (0.25 + 0.5 * even).expand(b, t, 1, h, w)
        return Prediction(logits, maps={"uncertainty": own} if maps and self.uncertain else {})

    def loss(self, prediction, target):
        return {}


def test_calibration_of_known_probabilities():
    report = evaluate(Doubtful(1, uncertain=True).eval(), Stripes(), negatives=False, progress=False)["calibration"]
    # All pixels have probability 3/4, one of six sounds. Half of the right and half of the wrong pixels are uncertain.
    assert report["ece"] == pytest.approx(3 / 4 - 1 / 6, abs=1e-6)
    assert report["auroc_confidence"] == pytest.approx(0.5)
    assert report["auroc_uncertainty"] == pytest.approx(0.5)


def test_calibration_of_a_perfect_model_has_no_auroc():
    report = evaluate(Reader().eval(), Stripes(), negatives=False, progress=False)
    assert report["calibration"]["ece"] == pytest.approx(0, abs=1e-4)
    assert report["calibration"]["auroc_confidence"] is None
    assert "auroc_uncertainty" not in report["calibration"]
    assert "calibration" in rendered(table(report))


class EvenSilent(Stripes):
    """The same data set in which odd stripes are sounding."""

    def __getitem__(self, index):
        clip, target, names = super().__getitem__(index)
        odd = (torch.arange(target.masks.shape[-1]) // STRIPE % 2).expand_as(target.masks)
        return Sample(clip, Target(odd.contiguous(), target.labelled), names)


def test_calibration_ranks_wrong_pixels_by_uncertainty():
    model, data = Doubtful(1, uncertain=True).eval(), EvenSilent()
    report = evaluate(model, data, negatives=False, progress=False)["calibration"]
    assert report["auroc_uncertainty"] == 1.0  # even stripes are uncertain and wrong, odd ones neither
    assert report["auroc_confidence"] == 0.5


def test_calibration_of_a_batch_with_padding_equals_that_of_single_clips():
    data = Stripes(lengths=(3, 1))
    one, two = (
        evaluate(Doubtful(1, uncertain=True).eval(), data, negatives=False, progress=False, batch_size=size)
        for size in (1, 4)
    )
    assert one["calibration"] == two["calibration"]


def test_table(heard):
    text = rendered(table(heard))
    assert "6 clips, 18 frames" in text
    for word in ("right audio", "silence", "noise", "swap", "avsbench", "maxf", "fdr", "overlap", "drop", "0.1667"):
        assert word in text
    assert "even" in rendered(parts_table(heard))
    without = evaluate(Reader(), Stripes(), negatives=False, progress=False)
    assert "swap" not in rendered(table(without))


def test_the_report_is_json(heard):
    assert json.loads(json.dumps(heard, allow_nan=False)) == heard


class TestCommand:
    @pytest.fixture(autouse=True)
    def parts(self, monkeypatch):
        """Replace checkpoint and data set by those of this file."""
        model = Reader()
        model.card = {"model": "reader", "config": {}, "data": {"name": "stripes", "clips": 4}, "classes": 1}
        self.model = model
        self.built = []

        def build(name, split, **settings):
            self.built.append((name, split, settings))
            return Stripes(**settings)

        monkeypatch.setattr(evaluation, "load", lambda checkpoint: model)
        monkeypatch.setattr(evaluation, "build_dataset", build)

    def test_writes_everything(self, tmp_path, capsys):
        out = tmp_path / "new" / "scores.json"
        result = evaluate_checkpoint("some/checkpoint", out=out, progress=False)
        assert json.loads(out.read_text()) == result
        assert [p.name for p in out.parent.iterdir()] == ["scores.json"]
        assert {"command", "commit", "date", "hardware", "versions", "config", "numbers"} == set(result)
        assert result["config"] == {
            "checkpoint": "some/checkpoint",
            "model": {"name": "reader", "classes": 1},
            "data": {"name": "stripes", "clips": 4, "split": "test"},
        }
        assert result["numbers"]["clips"] == 4
        assert "avsbench" in capsys.readouterr().out

    def test_data_settings_override_those_of_the_checkpoint(self):
        evaluate_checkpoint("c", {"lengths": (2,)}, split="val", progress=False)
        evaluate_checkpoint("c", {"name": "other", "clips": 3}, progress=False)
        assert self.built == [("stripes", "val", {"clips": 4, "lengths": (2,)}), ("other", "test", {"clips": 3})]

    def test_a_checkpoints_lists_are_settings_tuples(self):
        self.model.card["data"]["lengths"] = [1, 2]
        evaluate_checkpoint("c", negatives=False, progress=False)
        assert self.built == [("stripes", "test", {"clips": 4, "lengths": (1, 2)})]

    def test_a_checkpoint_without_data_needs_a_name(self):
        del self.model.card["data"]
        with pytest.raises(ConfigError, match=r"--data\.name"):
            evaluate_checkpoint("c", {"clips": 3})

    def test_unwritable_output_is_refused_before_evaluation(self, tmp_path):
        (tmp_path / "file").touch()
        for out in (tmp_path, tmp_path / "file" / "scores.json"):
            with pytest.raises(ConfigError, match="cannot write"):
                evaluate_checkpoint("c", out=out)
        assert self.built == []
