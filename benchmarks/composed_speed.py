"""Measure whether composing clips keeps up with training: ``python benchmarks/composed_speed.py STOCK OUT.json``.

Alternates between composing a batch of clips in one process and one training step of the bundled model's recipe on that
batch, each on one thread, and writes the median times and the median of their ratio. A ratio above 1 means that one
worker composes faster than one core trains.
"""

import shlex
import statistics
import sys
import time
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.progress import track

import avseg
from _common import mistakes_in_a_line
from avseg.data import build_dataset, collate
from avseg.provenance import provenance, write_result

RECIPE = Path(__file__).parent.parent / "configs" / "pcmanet_small_4.yaml"
_WARM_UP = 2


def measure(stock: Path, rounds: int) -> dict[str, float]:
    """Return seconds per clip of composing and of training, and the ratio of the two."""
    torch.set_num_threads(1)
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has (recordings|pictures)")
        data = build_dataset(split="train", **{**recipe["data"], "root": str(stock)})
    model = avseg.build(classes=1, **recipe["model"]).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    batch = int(recipe["train"]["batch_size"])
    composing, training = [], []
    for k in track(range(rounds + _WARM_UP), "measuring", console=Console(stderr=True), transient=True):
        started = time.perf_counter()
        sample = collate([data[k * batch + i] for i in range(batch)])
        composed = time.perf_counter()
        loss = torch.stack([*model.loss(model(sample.clip, sample.target), sample.target).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        composing.append((composed - started) / batch)
        training.append((time.perf_counter() - composed) / batch)
    composing, training = composing[_WARM_UP:], training[_WARM_UP:]
    return {
        "composing_seconds_per_clip": statistics.median(composing),
        "training_seconds_per_clip": statistics.median(training),
        "training_over_composing": statistics.median(t / c for t, c in zip(training, composing, strict=True)),
    }


def main(argv: Sequence[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=20, help="batches to measure")
    words = parser.parse_args(argv)
    with mistakes_in_a_line():
        numbers = measure(words.stock, words.rounds)
        given = ["STOCK", str(words.out), "--rounds", str(words.rounds)]
        command = shlex.join(["python", "benchmarks/composed_speed.py", *given])
        config = {"recipe": f"configs/{RECIPE.name}", "rounds": words.rounds}
        write_result(words.out, {**provenance(command), "config": config, "numbers": numbers})
    Console().print(numbers)


if __name__ == "__main__":
    main(sys.argv[1:])
