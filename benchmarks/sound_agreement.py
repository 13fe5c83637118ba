"""Agreement of two networks that embed windows of sound and score AudioSet classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from yamnet import Outputs

_PRESENT = 0.5
"""Score from which the reference counts a class as present."""
_ENOUGH = 3
"""Windows in which a class is present, from which it enters the mean average precision."""


def agreement(ours: Outputs, theirs: Outputs, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Return how well the outputs agree, JSON-able.

    Args:
        ours: Outputs for N windows.
        theirs: The reference for the same windows.
        labels: Class of each window; adds the table ``classes``, with windows, cosine and top-1 agreement of each.

    Returns:
        ``windows``; ``cosine``, the mean of that of the embeddings; ``correlation`` of all scores and
        ``logit_correlation``; ``top1``, the part of windows whose best class is the same; ``top1_in_top3``, those whose
        best class of the reference is among the three best; ``map``, the mean average precision over ``map_classes``
        classes, where the reference's scores above 0.5 are the truth.
    """
    cosine = _cosine(ours.embedding, theirs.embedding)
    top = theirs.logits.argmax(1)
    same = ours.logits.argmax(1) == top
    near = (np.argsort(-ours.logits, 1)[:, :3] == top[:, None]).any(1)
    scores, truth = _sigmoid(ours.logits), _sigmoid(theirs.logits)
    precisions = [
        average_precision(scores[:, c], truth[:, c] > _PRESENT)
        for c in np.flatnonzero((truth > _PRESENT).sum(0) >= _ENOUGH)
    ]
    found: dict[str, Any] = {
        "windows": len(cosine),
        "cosine": float(cosine.mean()),
        "correlation": float(np.corrcoef(scores.ravel(), truth.ravel())[0, 1]),
        "logit_correlation": float(np.corrcoef(ours.logits.ravel(), theirs.logits.ravel())[0, 1]),
        "top1": float(same.mean()),
        "top1_in_top3": float(near.mean()),
        "map": float(np.mean(precisions)) if precisions else None,
        "map_classes": len(precisions),
    }
    if labels is not None:
        names = np.array(labels)
        found["classes"] = {
            str(name): {
                "windows": int((names == name).sum()),
                "cosine": round(float(cosine[names == name].mean()), 4),
                "top1": round(float(same[names == name].mean()), 4),
            }
            for name in np.unique(names)
        }
    return found


def average_precision(scores: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> float:
    """Return the mean, over the true windows, of the precision among all windows scored at least as high."""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine: NDArray[np.float64] = (a * b).sum(1) / np.maximum(lengths, 1e-12)
    return cosine


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = expit(x.astype(np.float64))
    return scores
