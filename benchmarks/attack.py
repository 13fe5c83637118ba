"""Attack avseg with mutated media, model cards, results, configs, flags, pickles, checkpoints, masks and kills.

    python benchmarks/attack.py [--quick] [--seed 0] [--only KIND] [-o benchmarks/results/attack.json]

Every input must end in a result or in one line of avseg with exit code 2. Each runs in a forked process with a limit of
address space and of time. An input is a function of the seed, its kind and its number. Exit code 1 if any input ends in
another way; the JSON lists them.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from _attack_cases import MAKERS, cases
from _attack_runner import OUTCOMES, Outcome, run
from avseg.provenance import provenance, write_result

FULL = {
    "media": 1500, "sounds": 200, "cards": 250, "results": 400, "yaml": 200, "flags": 200, "pickles": 300,
    "checkpoints": 200, "masks": 150, "coco": 300, "kills": 30,
}  # fmt: skip
"""Inputs of each kind."""
QUICK = {kind: max(4, count // 40) for kind, count in FULL.items()}
"""Inputs of each kind with ``--quick``."""


def attack(counts: Mapping[str, int], seed: int, *, seconds: float | None = None) -> list[Outcome]:
    """Run the inputs; a number of ``seconds`` ends the attack early."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    outcomes, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        for number, case in enumerate(cases(counts, seed)):
            if seconds is not None and time.monotonic() - started > seconds:
                break
            outcome = run(case, Path(temporary, str(number)))
            outcomes.append(outcome)
            if outcome.end not in OUTCOMES[:2]:
                sys.stderr.write(f"{case.kind} {case.name}: {outcome.end}: {outcome.message}\n")
    return outcomes


def report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the counts of ends for each kind, the slowest and largest runs, and the inputs that ended wrongly."""
    kinds = sorted({outcome.case.kind for outcome in outcomes})
    ends = {kind: Counter(o.end for o in outcomes if o.case.kind == kind) for kind in kinds}
    return {
        "inputs": len(outcomes),
        "ends": {kind: {end: ends[kind][end] for end in OUTCOMES} for kind in kinds},
        "slowest_seconds": round(max(o.seconds for o in outcomes), 1),
        "peak_mib": max(o.peak for o in outcomes),
        "peak_of": {kind: max(o.peak for o in outcomes if o.case.kind == kind) for kind in kinds},
        "wrong": [
            {"kind": o.case.kind, "name": o.case.name, "end": o.end, "message": o.message}
            for o in outcomes
            if o.end not in OUTCOMES[:2]
        ],
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the report as a table in Markdown."""
    lines = [f"| input | {' | '.join(OUTCOMES)} | peak in MiB |", "|---" * (len(OUTCOMES) + 2) + "|"]
    for kind, ends in found["ends"].items():
        lines.append(f"| {kind} | {' | '.join(str(ends[end]) for end in OUTCOMES)} | {found['peak_of'][kind]} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Attack, print the table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about 100 inputs instead of 3730")
    parser.add_argument("--seed", type=int, default=0, help="seed of all mutations")
    parser.add_argument("--only", choices=sorted(MAKERS), help="one kind of input")
    parser.add_argument("--seconds", type=float, help="end after this time")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    given = parser.parse_args(argv)
    counts = QUICK if given.quick else FULL
    counts = counts if given.only is None else {given.only: counts[given.only]}
    found = report(attack(counts, given.seed, seconds=given.seconds))
    sys.stdout.write(f"{table(found)}\n{found['inputs']} inputs, {len(found['wrong'])} ended wrongly\n")
    if given.out is not None:
        words = ["python", "benchmarks/attack.py", *(argv if argv is not None else sys.argv[1:])]
        write_result(given.out, json.loads(json.dumps(provenance(shlex.join(words)) | {"seed": given.seed} | found)))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
