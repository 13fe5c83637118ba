"""Attack avseg with mutated media, model cards, results, configs, flags, pickles, checkpoints, masks and kills.

    python benchmarks/attack.py [--quick] [--seed 0] [--log attack.jsonl] [-o benchmarks/results/attack.json]
    python benchmarks/attack.py --inputs media:17 yaml:3

Every input must end in a result or in one line of avseg with exit code 2. Each is used by a command in a forked process
with a limit of address space and of time; one in 100 starts a new ``python -m avseg``. An input is a function of the
seed, its kind and its number. Exit code 1 if any input ends in another way; the JSON lists them. With ``--log``, the
ends are appended to a file, and the inputs in it are not run again.
"""

import argparse
import json
import os
import random
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported

from _attack_cases import HEALTHY, MAKERS, cases
from _attack_runner import OUTCOMES, Outcome, run
from avseg.provenance import provenance, write_result

FULL = {
    "media": 1200, "sounds": 200, "cards": 200, "results": 300, "yaml": 200, "flags": 200, "pickles": 250,
    "checkpoints": 200, "masks": 150, "coco": 270, "kills": 30,
}  # fmt: skip
"""Inputs of each kind."""
QUICK = {kind: max(4, count // 40) for kind, count in FULL.items()}
"""Inputs of each kind with ``--quick``."""


def order(counts: Mapping[str, int], seed: int) -> list[tuple[str, int]]:
    """Return kind and number of the inputs, in random order of kinds."""
    found = [(kind, number) for kind, count in counts.items() for number in range(count)]
    random.Random(seed).shuffle(found)
    return found


def attack(
    inputs: Sequence[tuple[str, int]],
    seed: int,
    *,
    seconds: float | None = None,
    log: Path | None = None,
    again: bool = False,
) -> list[Outcome]:
    """Run the inputs that are not in the log, ``again`` those that ended wrongly.

    A number of ``seconds`` ends the attack early.
    """
    found, started = logged(log), time.monotonic()
    done = {key for key, outcome in found.items() if not again or outcome.end in OUTCOMES[:2]}
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases([one for one in inputs if one not in done], seed):
            if seconds is not None and time.monotonic() - started > seconds:
                break
            outcome = run(case, Path(temporary, f"{case.kind}{case.number}"))
            if not case.number and case.kind in HEALTHY and outcome.end == "line":
                outcome = replace(outcome, end="unclear")
            found[case.kind, case.number] = outcome
            if log is not None:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
            if outcome.end not in OUTCOMES[:2]:
                name = f"{case.kind}:{case.number} {case.base} ({case.way})"
                sys.stderr.write(f"{name}: {outcome.end}: {outcome.message}\n")
    return list(found.values())


def logged(log: Path | None) -> dict[tuple[str, int], Outcome]:
    """Return the outcomes in a log, the last one of each input."""
    if log is None or not log.exists():
        return {}
    outcomes = [Outcome(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    return {(outcome.kind, outcome.number): outcome for outcome in outcomes}


def report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the counts of ends for each kind, the slowest and largest runs, and the inputs that ended wrongly."""
    kinds = sorted({outcome.kind for outcome in outcomes})
    ends = {kind: Counter(o.end for o in outcomes if o.kind == kind) for kind in kinds}
    return {
        "inputs": len(outcomes),
        "ways": dict(Counter(outcome.way for outcome in outcomes)),
        "ends": {kind: {end: ends[kind][end] for end in OUTCOMES} for kind in kinds},
        "slowest_seconds": max(o.seconds for o in outcomes),
        "most_processor_seconds": max(o.processor for o in outcomes),
        "peak_mib": max(o.peak for o in outcomes),
        "peak_of": {kind: max(o.peak for o in outcomes if o.kind == kind) for kind in kinds},
        "wrong": [asdict(o) for o in outcomes if o.end not in OUTCOMES[:2]],
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
    parser.add_argument("--quick", action="store_true", help="about 100 inputs instead of 3200")
    parser.add_argument("--seed", type=int, default=0, help="seed of all mutations")
    parser.add_argument("--only", choices=sorted(MAKERS), help="one kind of input")
    parser.add_argument("--inputs", nargs="+", metavar="KIND:NUMBER", help="only these inputs")
    parser.add_argument("--seconds", type=float, help="end after this time")
    parser.add_argument("--log", type=Path, help="file of the ends of all inputs; those in it are not run again")
    parser.add_argument("--again", action="store_true", help="repeat the inputs in the log that ended wrongly")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    given = parser.parse_args(argv)
    counts = QUICK if given.quick else FULL
    counts = counts if given.only is None else {given.only: counts[given.only]}
    inputs = order(counts, given.seed) if given.inputs is None else [_named(word) for word in given.inputs]
    found = report(attack(inputs, given.seed, seconds=given.seconds, log=given.log, again=given.again))
    sys.stdout.write(f"{table(found)}\n{found['inputs']} inputs, {len(found['wrong'])} ended wrongly\n")
    if given.out is not None:
        words = ["python", "benchmarks/attack.py", *(argv if argv is not None else sys.argv[1:])]
        write_result(given.out, provenance(shlex.join(words)) | {"seed": given.seed} | found)
    return 1 if found["wrong"] else 0


def _named(word: str) -> tuple[str, int]:
    kind, _, number = word.partition(":")
    return kind, int(number)


if __name__ == "__main__":
    raise SystemExit(main())
