"""Scores of audio-visual segmentation, one class per published protocol.

The literature has at least five conventions for "mIoU" and four for "F", and the same model can score 55 in one and
73 in another. Here each has a name; :func:`protocols` returns those that apply. Every protocol is a torchmetrics
``Metric`` of sums over clips. It does not depend on batch size, number of processes or order of clips, if each clip is
counted once (a sampler that repeats clips to fill the last batch changes every average).

    scores = protocols(classes=1)
    for metric in scores.values():
        metric.update(prediction, target, clip.valid)
    scores["avsbench"].compute()["j"]

The functions :func:`binary_iou`, :func:`binary_fscore` and :func:`semantic_scores` score one batch, as the released
AVSBench code does. In shapes of single clips, T is the number of scored frames.
"""

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from avseg.interface import IGNORE, Prediction, Target
from avseg.metrics.functional import (
    Areas,
    best_f,
    boundary_f,
    check_no_nan,
    class_areas,
    frame_iou,
    per_class,
    semantic_means,
    semantic_sums,
    threshold_areas,
    thresholds,
)


def protocols(classes: int) -> dict[str, Metric]:
    """Return all protocols that apply, by name.

    Args:
        classes: K of the model: 1 for sounding or not, else background + classes.

    Returns:
        For one class ``avsbench``, ``maxf``, ``dataset``, ``strict``, ``davis``; for several
        ``avsbench_semantic``, ``avsbench_semantic_padded``, ``dataset``, ``dataset_multi_source``, ``ddeseg``,
        ``strict``, ``davis``.
    """
    if classes == 1:
        first: dict[str, Metric] = {
            "avsbench": AVSBench(),
            "maxf": MaxF(),
            "dataset": DatasetLevel(1),
        }
    else:
        first = {
            "avsbench_semantic": AVSBenchSemantic(classes),
            "avsbench_semantic_padded": AVSBenchSemantic(classes, include_padded=True),
            "dataset": DatasetLevel(classes),
            "dataset_multi_source": DatasetLevel(classes, multi_source=True),
            "ddeseg": DatasetLevel(classes, absent="skip"),
        }
    return {**first, "strict": Strict(classes), "davis": Davis(classes)}


class Headline(NamedTuple):
    """The main score of the AVSBench tables.

    Attributes:
        protocol: Name of its protocol, see :func:`protocols`.
        score: Its name in the scores of the protocol.
        label: Its name in figures and tables.
    """

    protocol: str
    score: str
    label: str

    @property
    def name(self) -> str:
        """Return the name in reports: ``<protocol>/<score>``."""
        return f"{self.protocol}/{self.score}"


def headline(classes: int) -> Headline:
    """Return the main score for models of K classes."""
    return Headline("avsbench", "j", "J") if classes == 1 else Headline("avsbench_semantic", "miou", "mIoU")


def foreground(prediction: Prediction) -> Tensor:
    """Return the foreground probability (B, T, H, W) in float32, for predictions of one or two channels.

    It is the sigmoid of one channel (AVSBench), or the softmax of background and foreground (CAVP, COMBO).
    """
    logits = prediction.logits.float()
    return logits[:, :, 0].sigmoid() if logits.shape[2] == 1 else logits.softmax(2)[:, :, 1]


def decide(prediction: Prediction) -> Tensor:
    """Return the predicted label of each pixel, (B, T, H, W) int64.

    With one channel, pixels with sigmoid(logit) > 0.5 in float32 are foreground; with several, the label is the channel
    of the highest logit, the first of ties.
    """
    return (foreground(prediction) > 0.5).long() if prediction.logits.shape[2] == 1 else prediction.masks


class Protocol(Metric):
    """Base of all protocols: passes the scored frames of each clip to :meth:`add`.

    Args:
        classes: K; 1 also accepts predictions of two channels, background and foreground.
    """

    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    SUMS: ClassVar[tuple[str, ...]]
    """Names of the states, which are summed over clips and processes."""

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.classes = classes
        for name in self.SUMS:
            self.add_state(name, torch.zeros(self.size(name), dtype=torch.float64), dist_reduce_fx="sum")

    def size(self, name: str) -> tuple[int, ...]:
        """Return the shape of a state."""
        return ()

    def scored(self, labelled: Tensor, valid: Tensor) -> Tensor:
        """Return the scored frames, (B, T) bool."""
        return labelled

    def output(self, prediction: Prediction) -> Tensor:
        """Return the input of :meth:`add`, (B, T, H, W): labels, or foreground probabilities."""
        return decide(prediction)

    @abstractmethod
    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip.

        Args:
            output: (T, H, W), T ≥ 1, from :meth:`output`.
            labels: (T, H, W) int64; only 0 and 1 when ``classes`` is 1; 255 is not scored.
        """

    def update(self, prediction: Prediction, target: Target, valid: Tensor) -> None:
        """Count clips.

        Args:
            prediction: Output of the model.
            target: Ground truth; only ``target.labelled`` frames are scored.
            valid: (B, T) bool, ``Clip.valid``: False marks padding frames, which one protocol scores too.

        Raises:
            ValueError: When shapes or the number of classes do not agree, a label is out of range, or a logit is NaN.
        """
        logits, labels = prediction.logits, target.masks.to(prediction.logits.device)
        if logits.shape[2] not in ((1, 2) if self.classes == 1 else (self.classes,)):
            raise ValueError(f"{self.classes} classes are scored, the prediction has {logits.shape[2]} channels")
        if logits[:, :, 0].shape != labels.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and masks {tuple(labels.shape)} must agree on (B, T, H, W)")
        if self.classes == 1:
            labels = torch.where(labels == IGNORE, labels, (labels != 0).long())
        scored = self.scored(target.labelled, valid).to(logits.device)
        check_no_nan(logits.flatten(0, 1), scored.flatten())
        output = self.output(prediction)
        for clip in scored.any(1).nonzero().flatten():
            self.add(output[clip, scored[clip]], labels[clip, scored[clip]])

    def tally(self, **amounts: Tensor | float) -> None:
        """Add to the states."""
        for name, amount in amounts.items():
            total: Tensor = getattr(self, name)
            setattr(self, name, total + torch.as_tensor(amount).to(total))


class AVSBench(Protocol):
    """J, F and their mean for one class, as in the AVSBench tables of S4 and MS3, at the batch size 1 of the release.

    Reported by TPAVI, PCMANet, CATR, COMBO, CAVP ("instance level") and most others. J: per frame, mean over the
    frames of a clip, mean over clips; the score of a frame without sounding object is the share of background
    predictions. F: β² = 0.3; for each clip the best of 255 thresholds on the mean curve of its non-empty frames, mean
    over clips.

    Note: the threshold of F is selected on the ground truth of every clip; a clip without sounding object has F = 0
    and is included. AVSegFormer reports F at two clips per batch, which depends on the order of the clips and is lower:
    compute it with :func:`binary_fscore` on the frames of both clips.

    ``compute``: ``j``, ``f``, ``jf``.
    """

    SUMS = ("j", "f", "clips")
    j: Tensor
    f: Tensor
    clips: Tensor

    def output(self, prediction: Prediction) -> Tensor:
        """Return foreground probabilities, (B, T, H, W)."""
        return foreground(prediction)

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip."""
        j = frame_iou(class_areas((output > 0.5).long(), labels, 2)).mean()
        self.tally(j=j, f=best_f(threshold_areas(output, labels)), clips=1)

    def compute(self) -> dict[str, Tensor]:
        """Return the scores so far, 0..1."""
        j, f = self.j / self.clips, self.f / self.clips
        return {"j": j, "f": f, "jf": (j + f) / 2}


class MaxF(Protocol):
    """F (β² = 0.3) at the best single threshold for the whole data set, as in salient object detection.

    No AVS paper reports it; it is F of AVSBench without a threshold per clip. ``f`` is the maximum of the mean curve
    over all non-empty frames (F of AVSBench with the data set as one batch), at ``threshold``; ``f_pooled`` is the
    maximum of the curve with precision and recall of all pixels together, in which false positives in empty frames
    count, at ``threshold_pooled``.
    """

    SUMS = ("curve", "frames", "both", "predicted", "labelled")
    curve: Tensor
    frames: Tensor
    both: Tensor
    predicted: Tensor
    labelled: Tensor

    def size(self, name: str) -> tuple[int, ...]:
        """Return the shape of a state."""
        return () if name == "frames" else (len(thresholds()),)

    def output(self, prediction: Prediction) -> Tensor:
        """Return foreground probabilities, (B, T, H, W)."""
        return foreground(prediction)

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip."""
        areas = threshold_areas(output, labels)
        curves = areas.f()[areas.labelled[:, 0] > 0]
        self.tally(curve=curves.sum(0), frames=len(curves), **areas.total()._asdict())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores so far, 0..1; NaN before the first frame with a sounding object."""
        mean, at = (self.curve / self.frames).max(0)
        pooled, pooled_at = Areas(self.both, self.predicted, self.labelled).f().max(0)
        levels = thresholds().to(at.device)
        return {
            "f": mean,
            "threshold": levels[at],
            "f_pooled": pooled,
            "threshold_pooled": levels[pooled_at],
        }


class AVSBenchSemantic(Protocol):
    """mIoU and F (β² = 0.3) of class maps, as in the tables of AVSBench-semantic: see :func:`semantic_scores`.

    Reported by TPAVI, PCMANet, AVSegFormer, COMBO. Absent classes count as 0 and the background is one of the classes.
    The released "no background" score drops the last class instead of the background; ``_foreground`` drops the
    background.

    Args:
        classes: K.
        include_padded: Also score the padding frames of 5 s clips, with label 0, as the released AVSBench and PCMANet
            code does. They raise the background score of models that zero them, and are false positives of other
            models. COMBO and CAVP leave them out. The data set must pad its clips itself, because frames that pad a
            batch would be scored too.

    ``compute``: ``miou``, ``fscore``, each also with ``_no_background``, ``_foreground``, ``_present``, and ``jf``.
    """

    SUMS = ("iou", "fscore", "seen")
    iou: Tensor
    fscore: Tensor
    seen: Tensor

    def __init__(self, classes: int, include_padded: bool = False) -> None:
        super().__init__(classes)
        self.include_padded = include_padded

    def size(self, name: str) -> tuple[int, ...]:
        """Return the shape of a state."""
        return (self.classes,)

    def scored(self, labelled: Tensor, valid: Tensor) -> Tensor:
        """Return the scored frames, (B, T) bool."""
        return labelled | ~valid if self.include_padded else labelled

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip."""
        iou, fscore, seen = semantic_sums(class_areas(output, labels, self.classes))
        self.tally(iou=iou, fscore=fscore, seen=seen)

    def compute(self) -> dict[str, Tensor]:
        """Return the scores so far, 0..1."""
        scores = semantic_means(self.iou, self.fscore, self.seen)
        return {**scores, "jf": (scores["miou"] + scores["fscore"]) / 2}


class DatasetLevel(Protocol):
    """IoU, F and false discovery rate over all pixels of the data set, as in semantic segmentation.

    Reported by CAVP, CPM, DDESeg, AMA+UE and on VPO, for one class as background and foreground. The scores are much
    higher than those of AVSBench for the same model (CAVP on S4: 89.4 against 78.8) and must not be compared with them.

    Note: the background is a class. ``f1`` (β² = 1), ``fscore`` (β² = 0.3) and ``fdr`` (lower is better) are means
    over the classes for which they are defined, while absent classes count as 0 in ``miou``.

    Args:
        classes: K.
        absent: Classes neither predicted nor labelled count in ``miou`` as 0 with ``"zero"`` (CAVP, CPM), or not at all
            with ``"skip"`` (DDESeg).
        multi_source: Score only frames with more than two labels of more than 100 pixels each, background and 255
            included: the "MS" column of CAVP for AVSBench-semantic.

    ``compute``: ``miou``, ``fscore``, ``f1``, ``fdr``, ``accuracy`` (of pixels), ``jf_beta`` = (miou + fscore) / 2.
    """

    SUMS = ("both", "predicted", "labelled")
    both: Tensor
    predicted: Tensor
    labelled: Tensor

    def __init__(self, classes: int, absent: Literal["zero", "skip"] = "zero", multi_source: bool = False) -> None:
        super().__init__(classes)
        self.absent = absent
        self.multi_source = multi_source

    def size(self, name: str) -> tuple[int, ...]:
        """Return the shape of a state."""
        return (max(self.classes, 2),)

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip."""
        if self.multi_source:
            several = torch.tensor([(frame.unique(return_counts=True)[1] > 100).sum() > 2 for frame in labels])
            output, labels = output[several], labels[several]
        self.tally(**class_areas(output, labels, max(self.classes, 2)).total()._asdict())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores so far, 0..1; NaN before the first pixel."""
        areas = Areas(self.both, self.predicted, self.labelled)
        iou = areas.iou.nan_to_num(0) if self.absent == "zero" and self.labelled.any() else areas.iou
        miou, fscore = iou.nanmean(), areas.f().nanmean()
        return {
            "miou": miou,
            "fscore": fscore,
            "f1": areas.f(1.0).nanmean(),
            "fdr": areas.fdr.nanmean(),
            "accuracy": self.both.sum() / self.labelled.sum(),
            "jf_beta": (miou + fscore) / 2,
        }


class Strict(Protocol):
    """Overlap in frames with sounding objects, and false positives in frames without, class-agnostic.

    No paper reports it. J of AVSBench combines the two, with 0.99 for an empty frame with 1 % of false positives.
    Frames have equal weight; foreground are the pixels for which :func:`decide` does not return 0.

    ``compute``: ``iou`` and ``fscore`` (β² = 0.3), means over the frames with sounding objects; ``iou_all``, over all
    frames, with 1 for an empty frame without foreground prediction, else 0; ``empty``, the share of empty frames;
    ``false_frames``, the share of these with a foreground prediction; ``false_pixels``, their share of foreground
    predictions.
    """

    SUMS = ("iou", "fscore", "frames", "empty", "false_frames", "false_pixels", "empty_pixels")
    iou: Tensor
    fscore: Tensor
    frames: Tensor
    empty: Tensor
    false_frames: Tensor
    false_pixels: Tensor
    empty_pixels: Tensor

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip."""
        sounding = torch.where(labels == IGNORE, labels, (labels != 0).long())
        both, predicted, labelled = class_areas((output != 0).long(), sounding, 2)
        areas = Areas(both[:, 1], predicted[:, 1], labelled[:, 1])
        empty = areas.labelled == 0
        self.tally(
            iou=areas.iou[~empty].sum(),
            fscore=areas.f()[~empty].sum(),
            frames=len(empty),
            empty=empty.sum(),
            false_frames=(areas.predicted[empty] > 0).sum(),
            false_pixels=areas.predicted[empty].sum(),
            empty_pixels=labelled[empty].sum(),
        )

    def compute(self) -> dict[str, Tensor]:
        """Return the scores so far, 0..1; NaN where no frame is of that kind."""
        sounding = self.frames - self.empty
        return {
            "iou": self.iou / sounding,
            "fscore": self.fscore / sounding,
            "iou_all": (self.iou + self.empty - self.false_frames) / self.frames,
            "empty": self.empty / self.frames,
            "false_frames": self.false_frames / self.empty,
            "false_pixels": self.false_pixels / self.empty_pixels,
        }


class Davis(Protocol):
    """J and boundary F of the DAVIS benchmark (Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675).

    No AVS code uses it; in AVS papers "J&F" is that of AVSBench. An object is a class that is labelled somewhere in the
    clip. J and F of an object are means over all frames of the clip, in which a frame without the object scores 1 if it
    is not predicted there, else 0; then the mean over objects. F is :func:`boundary_f`. First and last frames are
    included; ignored pixels are background in prediction and ground truth.

    Note: clips without sounding object, and classes that are predicted but not labelled, do not affect the score.

    ``compute``: ``j``, ``f``, ``jf``.
    """

    SUMS = ("j", "f", "objects")
    j: Tensor
    f: Tensor
    objects: Tensor

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip."""
        predicted = output.masked_fill(labels == IGNORE, 0)
        for label in labels[(labels != 0) & (labels != IGNORE)].unique():
            ours, theirs = predicted == label, labels == label
            areas = class_areas(ours.long(), theirs.long(), 2)
            self.tally(j=areas.iou[:, 1].nan_to_num(1).mean(), f=boundary_f(ours, theirs).mean(), objects=1)

    def compute(self) -> dict[str, Tensor]:
        """Return the scores so far, 0..1; NaN before the first object."""
        j, f = self.j / self.objects, self.f / self.objects
        return {"j": j, "f": f, "jf": (j + f) / 2}


class PerClass(Protocol):
    """Scores of each class in ``avsbench_semantic`` and ``dataset``, as vectors (K,).

    ``compute``: ``frames`` (in which the class is predicted or labelled), ``iou`` and ``fscore`` averaged over these
    frames (0 without any), and over all pixels ``dataset_iou``, ``dataset_fscore``, ``fdr`` (NaN where undefined).
    """

    SUMS = ("iou", "fscore", "seen", "both", "predicted", "labelled")
    iou: Tensor
    fscore: Tensor
    seen: Tensor
    both: Tensor
    predicted: Tensor
    labelled: Tensor

    def size(self, name: str) -> tuple[int, ...]:
        """Return the shape of a state."""
        return (max(self.classes, 2),)

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Count the scored frames of one clip."""
        areas = class_areas(output, labels, max(self.classes, 2))
        iou, fscore, seen = semantic_sums(areas)
        self.tally(iou=iou, fscore=fscore, seen=seen, **areas.total()._asdict())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores so far, (K,) each."""
        iou, fscore = per_class(self.iou, self.fscore, self.seen)
        areas = Areas(self.both, self.predicted, self.labelled)
        return {
            "frames": self.seen,
            "iou": iou,
            "fscore": fscore,
            "dataset_iou": areas.iou,
            "dataset_fscore": areas.f(),
            "fdr": areas.fdr,
        }
