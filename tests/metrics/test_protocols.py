"""Tests of the protocols: worked examples, and independence of batches, order and processes."""

import pickle
import subprocess
import sys
from datetime import timedelta
from math import nan

import pytest
import torch
from torch import distributed
from torch.nn.functional import one_hot

from avseg import metrics
from avseg.interface import Prediction, Target
from avseg.metrics import AVSBench, AVSBenchSemantic, DatasetLevel, Davis, MaxF, PerClass, Strict, headline, protocols


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_clips(classes, clips=6, frames=4, size=(13, 11), seed=0):
    """Return logits, masks, labelled, valid, with empty frames, an empty clip, ignored pixels and padding."""
    logits = seeded(clips, frames, classes, *size, seed=seed)
    coarse = torch.nn.functional.avg_pool2d(seeded(clips * frames, 1, size[0], size[1], seed=seed + 1), 5, 1, 2)
    masks = (coarse.view(clips, frames, *size) * 8).long().clamp(0, max(classes - 1, 1))
    masks[0] = 0
    masks[1, 1] = 0
    masks[:, :, 0] = torch.where(seeded(clips, frames, size[1], seed=seed + 2) > 1, 255, masks[:, :, 0])
    valid = torch.ones(clips, frames, dtype=torch.bool)
    valid[2, 3:] = False
    masks[2, 3:] = 0
    return logits, masks, valid.clone(), valid


def run(metric, logits, masks, labelled=None, valid=None, batch=1):
    labelled = torch.ones(logits.shape[:2], dtype=torch.bool) if labelled is None else labelled
    valid = torch.ones(logits.shape[:2], dtype=torch.bool) if valid is None else valid
    for i in range(0, len(logits), batch):
        part = slice(i, i + batch)
        metric.update(Prediction(logits[part]), Target(masks[part], labelled[part]), valid[part])
    return {name: value.tolist() for name, value in metric.compute().items()}


def same(expected, **settings):
    return pytest.approx(expected, nan_ok=True, **settings)


EVERY = [(k, name) for k in (1, 5) for name in [*protocols(k), "per_class"]]


def make(classes, name):
    return PerClass(classes) if name == "per_class" else protocols(classes)[name]


@pytest.mark.parametrize(("classes", "name"), EVERY)
class TestEveryProtocol:
    def test_batch_size_does_not_matter(self, classes, name):
        clips = random_clips(classes)
        whole = run(make(classes, name), *clips, batch=6)
        for batch in (1, 4):
            scores = run(make(classes, name), *clips, batch=batch)
            assert {k: same(v, rel=1e-12) for k, v in whole.items()} == scores

    def test_order_does_not_matter(self, classes, name):
        clips = random_clips(classes)
        shuffled = [t[torch.tensor([3, 0, 5, 1, 4, 2])] for t in clips]
        expected = run(make(classes, name), *clips)
        assert {k: same(v, rel=1e-12) for k, v in expected.items()} == run(make(classes, name), *shuffled)

    def test_two_halves_sum_to_the_whole(self, classes, name):
        """Add states, as torchmetrics does for processes."""
        clips = random_clips(classes)
        halves = [make(classes, name), make(classes, name)]
        for half, part in zip(halves, (slice(0, 2), slice(2, 6)), strict=True):
            run(half, *(t[part] for t in clips))
        merged = make(classes, name)
        merged.update(*_batch(*clips))
        for state in merged.SUMS:
            setattr(merged, state, sum(getattr(half, state) for half in halves))
        scores = {k: v.tolist() for k, v in merged.compute().items()}
        assert {k: same(v, rel=1e-12) for k, v in run(make(classes, name), *clips).items()} == scores

    def test_pickle_and_reset(self, classes, name):
        clips = random_clips(classes)
        metric = make(classes, name)
        scores = run(metric, *clips)
        copy = pickle.loads(pickle.dumps(metric))
        assert {k: same(v) for k, v in scores.items()} == {k: v.tolist() for k, v in copy.compute().items()}
        metric.reset()
        assert {k: same(v) for k, v in scores.items()} == run(metric, *clips)

    def test_unlabelled_frames_do_not_count(self, classes, name):
        logits, masks, labelled, valid = random_clips(classes)
        labelled[:, 2:], valid[:] = False, True
        expected = run(make(classes, name), logits[:, :2], masks[:, :2])
        other = logits.clone()
        other[:, 2:] = nan
        assert {k: same(v) for k, v in expected.items()} == run(make(classes, name), other, masks, labelled, valid)

    def test_ignored_pixels_do_not_count(self, classes, name):
        logits, masks, labelled, valid = random_clips(classes)
        flipped = torch.where((masks == 255)[:, :, None], -3 * logits, logits)
        expected = run(make(classes, name), logits, masks, labelled, valid)
        assert {k: same(v) for k, v in expected.items()} == run(make(classes, name), flipped, masks, labelled, valid)

    def test_scores_are_shares(self, classes, name):
        for key, value in run(make(classes, name), *random_clips(classes)).items():
            if key != "frames":
                assert all(0 <= v <= 1 or v != v for v in torch.tensor(value).flatten().tolist()), key

    def test_perfect_prediction_has_perfect_scores(self, classes, name):
        masks = seeded(3, 4, 40, 40).mul(2).long().abs().clamp(max=max(classes - 1, 1))
        logits = 200 * (masks[:, :, None] - 0.5) if classes == 1 else 9.0 * one_hot(masks, classes).movedim(-1, 2)
        scores = run(make(classes, name), logits.float(), masks)
        for key in {"j", "f", "jf", "f_pooled", "miou", "fscore", "iou", "accuracy", "jf_beta"} & set(scores):
            assert (torch.tensor(scores[key]) - 1).abs().max() < 1e-6, key

    def test_refuses_nan(self, classes, name):
        logits, masks, *_ = random_clips(classes)
        logits[3, 1, 0, 2, 2] = nan
        with pytest.raises(ValueError, match="NaN"):
            run(make(classes, name), logits, masks)

    def test_refuses_other_shapes(self, classes, name):
        logits, masks, *_ = random_clips(classes)
        with pytest.raises(ValueError, match="7 channels"):
            run(make(classes, name), seeded(6, 4, 7, 13, 11), masks)
        with pytest.raises(ValueError, match="must agree"):
            run(make(classes, name), logits, masks[..., :-1])

    def test_states_have_no_gradient_and_leave_inference_mode(self, classes, name):
        logits, masks, labelled, valid = random_clips(classes)
        metric = make(classes, name)
        with torch.inference_mode():
            metric.update(*_batch(logits[:3], masks[:3], labelled[:3], valid[:3]))
        metric.update(*_batch(logits[3:].requires_grad_(), masks[3:], labelled[3:], valid[3:]))
        expected = run(make(classes, name), logits.detach(), masks, labelled, valid)
        assert {k: same(v) for k, v in expected.items()} == {k: v.tolist() for k, v in metric.compute().items()}


def _batch(logits, masks, labelled, valid):
    return Prediction(logits), Target(masks, labelled), valid


def logit(*frames):
    """Return a clip of one channel with given probabilities."""
    return torch.tensor(frames).logit()[None, :, None]


A = logit([[0.9, 0.6], [0.4, 0.1]]), torch.tensor([[[[1, 0], [1, 0]]]])
B = logit([[0.2, 0.1], [0.1, 0.1]]), torch.tensor([[[[1, 0], [0, 0]]]])


class TestAVSBench:
    def test_one_best_threshold_per_clip(self):
        clips = torch.cat([A[0], B[0]]), torch.cat([A[1], B[1]])
        scores = run(AVSBench(), *clips, batch=2)
        assert scores["f"] == pytest.approx((0.8125 + 1) / 2)
        assert scores["j"] == pytest.approx((1 / 3 + 0) / 2)
        assert scores["jf"] == pytest.approx((scores["j"] + scores["f"]) / 2)

    def test_equals_the_functions_on_each_clip(self):
        logits, masks = seeded(5, 3, 1, 8, 8), (seeded(5, 3, 8, 8, seed=1) > 1).long()
        scores = run(AVSBench(), logits, masks, batch=5)
        for key, function in (("j", metrics.binary_iou), ("f", metrics.binary_fscore)):
            assert scores[key] == pytest.approx(sum(function(*c).item() for c in zip(logits, masks, strict=True)) / 5)

    def test_clip_without_sounding_object_has_f_0(self):
        silent = logit([[0.1, 0.1], [0.1, 0.9]]), torch.zeros(1, 1, 2, 2).long()
        scores = run(AVSBench(), torch.cat([A[0], silent[0]]), torch.cat([A[1], silent[1]]))
        assert scores["f"] == pytest.approx(0.8125 / 2)
        assert scores["j"] == pytest.approx((1 / 3 + 3 / 4) / 2, abs=1e-6)

    def test_clips_of_any_length_have_equal_weight(self):
        logits, masks = torch.cat([A[0], B[0]]).repeat(1, 3, 1, 1, 1), torch.cat([A[1], B[1]]).repeat(1, 3, 1, 1)
        labelled = torch.tensor([[True, True, True], [True, False, False]])
        assert run(AVSBench(), logits, masks, labelled)["j"] == pytest.approx((1 / 3 + 0) / 2)

    def test_two_channels_as_cavp_and_combo_have_them(self):
        one, masks = seeded(3, 2, 1, 6, 6), (seeded(3, 2, 6, 6, seed=1) > 0).long()
        two = torch.cat([torch.zeros_like(one), one], 2)
        assert run(AVSBench(), two, masks) == pytest.approx(run(AVSBench(), one, masks), abs=1e-6)

    def test_exactly_one_half_is_background(self):
        scores = run(AVSBench(), torch.zeros(1, 1, 1, 2, 2), torch.zeros(1, 1, 2, 2).long())
        assert scores["j"] == pytest.approx(1.0, abs=1e-6)

    def test_masks_of_any_positive_label_are_foreground(self):
        assert run(AVSBench(), A[0], A[1] * 7) == run(AVSBench(), *A)


class TestMaxF:
    def test_one_threshold_for_all_clips(self):
        scores = run(MaxF(), torch.cat([A[0], B[0]]), torch.cat([A[1], B[1]]))
        assert scores["f"] == pytest.approx((0.7222 + 1) / 2, abs=1e-4)
        assert 0.1 < scores["threshold"] <= 0.2

    def test_equals_avsbench_with_the_set_as_one_batch(self):
        logits, masks, _, _ = random_clips(1)
        masks[masks == 255] = 0
        expected = metrics.binary_fscore(logits, masks).item()
        assert run(MaxF(), logits, masks)["f"] == pytest.approx(expected)

    def test_pooled_precision_and_recall_by_hand(self):
        scores = run(MaxF(), torch.cat([A[0], B[0]]), torch.cat([A[1], B[1]]))
        # At (.1, .2]: four foreground predictions, three of them correct; three labelled.
        assert scores["f_pooled"] == pytest.approx(1.3 * 3 / (0.3 * 3 + 4))
        assert 0.1 < scores["threshold_pooled"] <= 0.2

    def test_false_positives_in_empty_frames_lower_only_the_pooled_score(self):
        false = torch.full((1, 1, 1, 2, 2), 9.0), torch.zeros(1, 1, 2, 2).long()
        alone, more = run(MaxF(), *A), run(MaxF(), torch.cat([A[0], false[0]]), torch.cat([A[1], false[1]]))
        assert more["f"] == alone["f"]
        assert more["f_pooled"] < alone["f_pooled"]


PREDICTED = torch.tensor([[[[0, 0], [1, 1]], [[0, 0], [0, 2]]]])
LABELS = torch.tensor([[[[0, 0], [0, 1]], [[0, 0], [0, 0]]]])
EXAMPLE = one_hot(PREDICTED, 4).movedim(-1, 2).float(), LABELS


class TestAVSBenchSemantic:
    def test_worked_example(self):
        scores = run(AVSBenchSemantic(4), *EXAMPLE)
        assert scores["miou"] == pytest.approx(0.30208, abs=1e-5)
        assert scores["miou_no_background"] == pytest.approx(0.40278, abs=1e-5)
        assert scores["miou_foreground"] == pytest.approx(0.16667, abs=1e-5)
        assert scores["miou_present"] == pytest.approx(0.40278, abs=1e-5)
        assert scores["fscore"] == pytest.approx(0.36944, abs=1e-5)
        assert scores["jf"] == pytest.approx((0.30208 + 0.36944) / 2, abs=1e-5)

    def test_include_padded_scores_padding_frames(self):
        logits, masks, valid = *EXAMPLE, torch.tensor([[True, False]])
        without = run(AVSBenchSemantic(4), logits, masks, valid, valid)
        assert without == run(AVSBenchSemantic(4), logits[:, :1], masks[:, :1])
        official = run(AVSBenchSemantic(4, include_padded=True), logits, masks, valid, valid)
        assert official == run(AVSBenchSemantic(4), *EXAMPLE)

    def test_zeroed_padding_raises_only_the_background(self):
        logits, masks, labelled, valid = random_clips(5)
        logits[2, 3:] = 0
        without, with_padding = PerClass(5), AVSBenchSemantic(5, include_padded=True)
        run(without, logits, masks, labelled, valid)
        run(with_padding, logits, masks, labelled, valid)
        gained = with_padding.iou - without.iou
        assert gained.tolist() == pytest.approx([1, 0, 0, 0, 0])


class TestDatasetLevel:
    def test_worked_example(self):
        scores = run(DatasetLevel(4), *EXAMPLE)
        expected = {"miou": 0.30357, "fscore": 0.49357, "fdr": 0.5, "accuracy": 0.75, "jf_beta": 0.39857}
        assert {k: scores[k] for k in expected} == pytest.approx(expected, abs=1e-5)
        # F1 = 2 TP / (2 TP + FN + FP): 10 / 12, 2 / 3, 0.
        assert scores["f1"] == pytest.approx((10 / 12 + 2 / 3 + 0) / 3)

    def test_ddeseg_leaves_absent_classes_out(self):
        scores = run(DatasetLevel(4, absent="skip"), *EXAMPLE)
        assert scores["miou"] == pytest.approx(0.40476, abs=1e-5)
        assert scores["fscore"] == pytest.approx(0.49357, abs=1e-5)

    def test_one_class_is_background_and_foreground(self):
        logits, masks = torch.tensor([[[[[5.0, 5], [-5, -5]]]]]), torch.tensor([[[[1, 0], [1, 0]]]])
        scores = run(DatasetLevel(1), logits, masks)
        assert scores["miou"] == pytest.approx(1 / 3)
        assert scores["accuracy"] == 0.5

    def test_multi_source_takes_frames_of_three_large_labels(self):
        labels = torch.zeros(1, 4, 20, 20).long()
        labels[0, 0, :6], labels[0, 0, 6:12] = 1, 2  # three labels
        labels[0, 1, :6] = 1  # two
        labels[0, 2, :6], labels[0, 2, 6:11] = 1, 2  # the third has 100 pixels
        labels[0, 3, :6], labels[0, 3, 6:12] = 1, 255  # 255 is the third
        logits = seeded(1, 4, 3, 20, 20)
        kept = torch.tensor([[True, False, False, True]])
        expected = run(DatasetLevel(3), logits, labels, kept)
        assert run(DatasetLevel(3, multi_source=True), logits, labels) == pytest.approx(expected)

    def test_scores_without_frames_are_nan(self):
        scores = run(DatasetLevel(4, multi_source=True), *EXAMPLE)
        assert all(value != value for value in scores.values())


class TestStrict:
    def test_by_hand(self):
        labels = torch.tensor([[[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]])
        marks = torch.tensor([[[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]])
        scores = run(Strict(1), 10 * (marks[:, :, None] - 0.5), labels)
        assert scores == pytest.approx(
            {
                "iou": 1 / 3,
                "fscore": 1.3 / (0.3 * 2 + 2),
                "iou_all": (1 / 3 + 0 + 1 + 0) / 4,
                "empty": 3 / 4,
                "false_frames": 2 / 3,
                "false_pixels": 5 / 12,
            }
        )

    def test_strict_ignores_the_class_of_foreground(self):
        scores = run(Strict(4), *EXAMPLE)
        assert scores["iou"] == 0.5
        assert scores["false_pixels"] == 0.25

    def test_strict_without_empty_frames_is_nan(self):
        scores = run(Strict(1), *A)
        assert scores["iou"] == pytest.approx(1 / 3)
        assert scores["false_frames"] != scores["false_frames"]


class TestDavis:
    @staticmethod
    def clip(*boxes):
        """Return (1, T, 40, 40) with a square of 12 pixels at each (label, top), or empty frames."""
        masks = torch.zeros(1, len(boxes), 40, 40).long()
        for frame, box in enumerate(boxes):
            if box:
                masks[0, frame, box[1] : box[1] + 12, 8:20] = box[0]
        return masks

    def test_frames_without_the_object_score_1_without_prediction(self):
        masks, marks = self.clip((1, 5), None, None), self.clip((1, 5), None, (1, 5))
        scores = run(Davis(1), 10 * (marks[:, :, None] - 0.5), masks)
        assert scores == pytest.approx({"j": 2 / 3, "f": 2 / 3, "jf": 2 / 3})

    def test_objects_have_equal_weight(self):
        masks = self.clip((1, 5), (1, 5)), self.clip((2, 5), (3, 5))
        marks = self.clip((1, 5), (1, 5)), self.clip((2, 5), None)
        logits = 9.0 * one_hot(torch.cat(marks), 4).movedim(-1, 2)
        assert run(Davis(4), logits, torch.cat(masks))["j"] == pytest.approx((1 + 1 + 1 / 2) / 3)

    def test_clip_without_sounding_object_has_no_object(self):
        scores = run(Davis(1), torch.ones(1, 2, 1, 40, 40), self.clip(None, None))
        assert all(value != value for value in scores.values())

    def test_boundary_tolerates_a_pixel_and_overlap_does_not(self):
        scores = run(Davis(1), 10 * (self.clip((1, 6))[:, :, None] - 0.5), self.clip((1, 5)))
        assert scores["f"] == 1.0
        assert scores["j"] == pytest.approx(11 / 13)


@pytest.mark.parametrize("name", [name for classes, name in EVERY if classes == 1])
def test_categories_do_not_change_scores_of_one_class(name):
    logits, masks, *rest = random_clips(1)
    categories = masks * torch.randint(1, 71, masks.shape)
    categories[masks == 255] = 255
    expected = run(make(1, name), logits, masks, *rest)
    assert {k: same(v) for k, v in expected.items()} == run(make(1, name), logits, categories, *rest)


def test_per_class_averages_to_the_means():
    scores = run(PerClass(4), *EXAMPLE)
    assert scores["frames"] == [2, 1, 1, 0]
    assert scores["iou"] == pytest.approx([0.70833, 0.5, 0, 0], abs=1e-5)
    assert scores["fscore"] == pytest.approx([0.9126, 0.5652, 0, 0], abs=1e-4)
    assert scores["dataset_iou"] == pytest.approx([5 / 7, 0.5, 0, nan], nan_ok=True)
    assert scores["fdr"] == pytest.approx([0, 0.5, 1, nan], nan_ok=True)


def test_semantic_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"labels must be 0\.\.3 or 255, got 4"):
        run(DatasetLevel(4), EXAMPLE[0], LABELS * 4)


SECOND_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_protocols import half_of_the_clips
half_of_the_clips(1, Path(sys.argv[2]))
"""


def half_of_the_clips(rank, folder):
    """Join the other process, score every second clip, and return the combined scores."""
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", meeting, timedelta(minutes=5), rank=rank, world_size=2)
    try:
        return {
            (k, name): run(metric, *(t[rank::2] for t in random_clips(k)))
            for k in (1, 5)
            for name, metric in protocols(k).items()
        }
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", SECOND_PROCESS, __file__, str(tmp_path)])
    together = half_of_the_clips(0, tmp_path)
    assert other.wait(timeout=300) == 0
    for (classes, name), scores in together.items():
        alone = run(protocols(classes)[name], *random_clips(classes))
        assert {k: same(v, rel=1e-12) for k, v in alone.items()} == scores, name


@pytest.mark.parametrize(("classes", "name", "label"), [(1, "avsbench/j", "J"), (3, "avsbench_semantic/miou", "mIoU")])
def test_headline_is_a_score_of_its_protocol(classes, name, label):
    main = headline(classes)
    assert (main.name, main.label) == (name, label)
    metric = protocols(classes)[main.protocol]
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.int64)
    prediction = Prediction(torch.zeros(1, 2, classes, 4, 4))
    metric.update(prediction, Target(masks, torch.ones(1, 2, dtype=torch.bool)), torch.ones(1, 2, dtype=torch.bool))
    assert main.score in metric.compute()
