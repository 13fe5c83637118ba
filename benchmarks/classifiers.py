"""Who should name the class of a query: ``python benchmarks/classifiers.py RUNS OUT LABEL …``.

RUNS is the folder of an ``avseg bench``, each LABEL a CPM of it that has mixtures. The last weights of every seed
answer the test split twice: by Bayes' rule over the mixtures, as they were trained to, and by the softmax of the class
head, which is trained beside them. OUT.json has the scores of the headline's protocol, OUT.md a table.
"""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from rich.console import Console

import avseg
from avseg.bench.statistics import summary
from avseg.data import build_dataset
from avseg.evaluate import evaluate
from avseg.models.cpm import CPM
from avseg.provenance import provenance, write_result, write_text

CLASSIFIERS = ("bayes", "softmax")


def score(run: Path) -> dict[str, dict[str, float]]:
    """Classifier → name of a score → value."""
    model = avseg.load(run / "last")
    if not isinstance(model, CPM) or model.mixtures is None:
        raise SystemExit(f"{run} holds no CPM with mixtures: choose another label")
    data = build_dataset(split="test", **model.card["data"])
    found = {}
    for classifier in CLASSIFIERS:
        model.config = dataclasses.replace(model.config, classifier=classifier)
        report = evaluate(model, data, negatives=False)
        found[classifier] = report["scores"][report["headline"].partition("/")[0]]
    return found


def cell(found: dict[str, float]) -> str:
    """Mean ± deviation, percent."""
    return f"{100 * found['mean']:.1f} ± {100 * (found['std'] or 0):.1f}"


def main(argv: list[str]) -> None:
    """Score, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("labels", nargs="+")
    said = parser.parse_args(argv)
    seeds = {label: [score(run) for run in sorted((said.runs / label).glob("seed*"))] for label in said.labels}
    if missing := [label for label, found in seeds.items() if not found]:
        raise SystemExit(f"{said.runs} has no runs of {', '.join(map(repr, missing))}: choose among its folders")
    numbers = {
        label: {
            classifier: {name: dataclasses.asdict(summary([run[classifier][name] for run in found])) for name in names}
            for classifier, names in found[0].items()
        }
        for label, found in seeds.items()
    }
    command = shlex.join(["python", "benchmarks/classifiers.py", *argv])
    write_result(said.out.with_suffix(".json"), {**provenance(command, "cpu"), "numbers": numbers})
    first = next(iter(next(iter(seeds.values()))[0]["bayes"]))
    rows = [f"| {label} | {' | '.join(cell(of[c][first]) for c in CLASSIFIERS)} |" for label, of in numbers.items()]
    text = "\n".join([f"`{command}`", "", f"| {first} | Bayes' rule | softmax |", "|---|---:|---:|", *rows, ""])
    write_text(said.out.with_suffix(".md"), text)
    Console().print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
