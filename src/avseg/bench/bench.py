"""Run a comparison: train, score, count costs, and write table, learning curves and JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from avseg.bench.curves import draw_curves
from avseg.bench.plan import Plan
from avseg.bench.statistics import paired_bootstrap, summary
from avseg.bench.table import markdown, table
from avseg.checkpoints.store import load
from avseg.config import Run
from avseg.data import build_dataset
from avseg.errors import ConfigError
from avseg.evaluation.evaluate import evaluate
from avseg.files import check_writable, write_text
from avseg.model_folder import read_card
from avseg.models import build_for
from avseg.profile import TOTAL, profile
from avseg.provenance import provenance, write_result
from avseg.training.train import train

SCORES = "scores.json"
"""File in the folder of a run with the scores of its last weights."""


def bench(plan: Plan, command: str, *, progress: bool = False) -> dict[str, Any]:
    """Train and score all models with all seeds; completed runs are not repeated.

    Args:
        plan: The comparison.
        command: Command line, for the report.
        progress: Show progress bars and the current run.

    Returns:
        Content of the JSON file: provenance, ``config`` (the recipes), ``numbers``.

    Raises:
        AvsegError: When a setting cannot work or a loss is not finite. Completed runs are kept.
    """
    console = Console(stderr=True, quiet=not progress)
    check_writable(plan.results / f"{plan.name}.json", "choose another --results")
    total = sum(map(len, plan.runs.values()))
    reports: dict[str, list[dict[str, Any]]] = {label: [] for label in plan.runs}
    # Seed by seed, so that an interrupted comparison has runs of all models for the first seeds.
    queue = sorted(((label, run) for label, runs in plan.runs.items() for run in runs), key=lambda p: p[1].train.seed)
    for done, (label, run) in enumerate(queue, 1):
        console.print(f"{done} of {total}: {label}, seed {run.train.seed}")
        reports[label].append(_scores(train(run, progress=progress), run, plan.split, progress))
    numbers = _numbers(plan, reports)
    config = {label: runs[0].as_dict() for label, runs in plan.runs.items()}
    device = _device(next(iter(plan.runs.values()))[0])
    result = {**provenance(command, device), "config": {"split": plan.split, "recipes": config}, "numbers": numbers}
    write_result(plan.results / f"{plan.name}.json", result)
    write_text(plan.results / f"{plan.name}.md", markdown(result))
    draw_curves(plan.runs, plan.results / f"{plan.name}.png")
    Console().print(table(result))
    return result


def _scores(folder: Path, run: Run, split: str, progress: bool) -> dict[str, Any]:
    """Score the last weights of a run, or read the scores from its folder."""
    step = read_card(folder / "last")["step"]
    if step != run.train.max_steps:
        raise ConfigError(
            f"{folder} holds a run of {step} steps, the budget is {run.train.max_steps}: choose another --out"
        )
    path, key = folder / SCORES, {"split": split, "step": step}
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("of") == key:
            return dict(kept["report"])
    report = evaluate(
        load(folder / "last"),
        build_dataset(split=split, **run.data),
        device=_device(run),
        progress=progress,
        workers=run.train.workers,
    )
    write_result(path, {"of": key, "report": report})
    return report


def _numbers(plan: Plan, reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return scores over seeds, differences to the first model, and costs."""
    first = next(iter(reports))
    numbers: dict[str, Any] = {
        "clips": reports[first][0]["clips"],
        "headline": reports[first][0]["headline"],
        "compared_with": first,
        "models": {},
    }
    for label, found in reports.items():
        entry: dict[str, Any] = {"scores": _summaries(found)}
        if label != first:
            pair = _per_clip(found), _per_clip(reports[first])
            entry["difference"] = dataclasses.asdict(paired_bootstrap(*pair))
        numbers["models"][label] = {
            **entry,
            "cost": _cost(plan.runs[label][0]),
            "trained_at": _commits(plan.runs[label]),
        }
    return numbers


def _commits(runs: Sequence[Run]) -> list[str]:
    """Return the commits of the training runs, which may be older than the commit of the report."""
    return sorted({str(read_card(Path(str(run.train.out)) / "last").get("commit")) for run in runs})


def _summaries(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return every score of the headline's protocol, and the drop of the headline with negative audio."""
    protocol = reports[0]["headline"].partition("/")[0]
    rows = [
        {f"{protocol}/{name}": value for name, value in report["scores"][protocol].items()}
        | {f"strict/{name}": value for name, value in report["scores"]["strict"].items()}
        | {f"drop/{kind}": wrong["drop"] for kind, wrong in report["negatives"].items()}
        for report in reports
    ]
    defined = [name for name in rows[0] if all(row[name] is not None for row in rows)]
    return {name: dataclasses.asdict(summary([row[name] for row in rows])) for name in defined}


def _per_clip(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return for each seed the first score of each clip, which is J for one class."""
    return [
        {name: next(iter(kinds["right"].values())) or 0.0 for name, kinds in report["per_clip"].items()}
        for report in reports
    ]


def _cost(run: Run) -> dict[str, Any]:
    """Count and time the cost of one clip of the comparison."""
    dataset = build_dataset(split="val", **run.data)
    _, frames, _, height, width = dataset[0].clip.frames.shape
    model = build_for(dataset, **run.model).to(_device(run))
    found = profile(model, frames=frames, height=height, width=width, runs=5)
    cost = dataclasses.asdict(next(iter(found.costs.values()))[TOTAL])
    return {**cost, "clip": found.clip}


def _device(run: Run) -> str:
    """Return the device for scores and timing, the same as for training."""
    chosen = run.train.accelerator
    if chosen in ("auto", "gpu") and torch.cuda.is_available():
        return "cuda"
    return "mps" if chosen == "mps" or (chosen == "auto" and torch.backends.mps.is_available()) else "cpu"
