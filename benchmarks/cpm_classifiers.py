"""Compare classifiers of CPM's queries: ``python benchmarks/cpm_classifiers.py RUNS OUT LABEL …``.

RUNS is the folder of an ``avseg bench``, each LABEL a CPM of it that has mixtures. The last weights of every seed
are scored on the test split with three classifiers: Bayes' rule over the mixtures with a uniform class prior (CPM's
default); the same rule with the class frequencies of matched queries on the validation split as prior; and the softmax
of the class head, which is trained in addition to the mixtures. OUT.json has the scores of the headline's protocol,
OUT.md a table of the first of them.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import avseg
from _common import arguments, cell, mistakes_in_a_line, over_seeds, seeds
from avseg.data import AVSDataset, build_dataset, collate
from avseg.errors import ConfigError
from avseg.evaluation.evaluate import evaluate
from avseg.files import write_text
from avseg.models.cpm import CPM
from avseg.nn.gaussian_mixture import ClassMixtures
from avseg.nn.matching import match
from avseg.provenance import provenance, write_result

CLASSIFIERS = ("Bayes, uniform prior", "Bayes, prior of matched queries", "softmax")


class PriorBayes:
    """Bayes' rule with a class prior.

    Args:
        mixtures: p(q | c).
        prior: Log p(c), (C,).
    """

    def __init__(self, mixtures: ClassMixtures, prior: Tensor) -> None:
        self.mixtures, self.prior = mixtures, prior

    def __call__(self, x: Tensor) -> Tensor:
        """Return log p(c | x), (..., d) → (..., C)."""
        return (self.mixtures.log_likelihood(x) + self.prior).log_softmax(-1)


@torch.inference_mode()
def prior(model: CPM, data: AVSDataset) -> Tensor:
    """Return the log frequency of each class, and of no class, among the queries, with one pseudo-count per class."""
    counts = torch.ones(model.labels + 1)
    for index in range(len(data)):
        sample = collate([data[index]])
        state = model(sample.clip).state
        labels = sample.target.masks.flatten(0, 1)
        matches = match(state.classes[-1], state.outputs.masks[-1], labels, model.config.set_loss, random=False)
        counts[:-1] += matches.classes.bincount(minlength=model.labels)
        counts[-1] += state.classes[-1].shape[:2].numel() - len(matches.classes)
    return (counts / counts.sum()).log()


def score(run: Path) -> dict[str, dict[str, Any]]:
    """Return classifier → name of a score → value."""
    model = avseg.load(run / "last")
    if not isinstance(model, CPM) or model.mixtures is None:
        raise ConfigError(f"{run} holds no CPM with mixtures: choose another label")
    data = build_dataset(split="test", **model.card["data"])

    def scores() -> dict[str, Any]:
        report = evaluate(model, data, negatives=False)
        of_protocol: dict[str, Any] = report["scores"][report["headline"].partition("/")[0]]
        return of_protocol

    plain = scores()
    with_prior = PriorBayes(model.mixtures, prior(model, build_dataset(split="val", **model.card["data"])))
    model.mixtures.log_posterior = with_prior  # type: ignore[method-assign]
    found = plain, scores()
    model.config = dataclasses.replace(model.config, classifier="softmax")
    return dict(zip(CLASSIFIERS, (*found, scores()), strict=True))


def main(argv: Sequence[str]) -> None:
    """Score, and write both files."""
    args = arguments(__doc__).parse_args(argv)
    with mistakes_in_a_line():
        scores = {label: [score(run) for run in found] for label, found in seeds(args.runs, args.labels).items()}
        numbers = {
            label: {
                classifier: {name: over_seeds([run[classifier][name] for run in found]) for name in names}
                for classifier, names in found[0].items()
            }
            for label, found in scores.items()
        }
        command = shlex.join(["python", "benchmarks/cpm_classifiers.py", *argv])
        write_result(args.out.with_suffix(".json"), {**provenance(command, "cpu"), "numbers": numbers})
        first = next(iter(numbers[args.labels[0]][CLASSIFIERS[0]]))
        rows = [f"| {label} | {' | '.join(cell(of[c][first]) for c in CLASSIFIERS)} |" for label, of in numbers.items()]
        head = f"| {first} | {' | '.join(CLASSIFIERS)} |"
        text = "\n".join([f"`{command}`", "", head, f"|---|{'---:|' * len(CLASSIFIERS)}", *rows, ""])
        write_text(args.out.with_suffix(".md"), text)
    Console().print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
