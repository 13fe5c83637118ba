"""Format a comparison as a table, for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

_COSTS = ("params / M", "MACs / G", "ms", "MiB")
_SCORES = {"j": "J", "f": "F", "miou": "mIoU", "fscore": "F"}


def _columns(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Return name → heading of the scores in the table."""
    some = next(iter(numbers["models"].values()))["scores"]
    protocol = numbers["headline"].partition("/")[0]
    shown = {f"{protocol}/{name}": heading for name, heading in _SCORES.items()}
    shown |= {"strict/iou": "IoU, sounding", "drop/swap": "drop, swap", "drop/silence": "drop, silence"}
    return {name: heading for name, heading in shown.items() if name in some}


def _rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    numbers = result["numbers"]
    columns = _columns(numbers)
    first = numbers["compared_with"]
    headings = ["model", *columns.values(), f"Δ to {first} [95 %]", *_COSTS]
    rows = []
    for label, entry in numbers["models"].items():
        cells = [_score(entry["scores"][name]) for name in columns]
        rows.append([label, *cells, _difference(entry.get("difference")), *_cost(entry["cost"])])
    return headings, rows


def _score(found: Mapping[str, Any]) -> str:
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.1f}"
    return f"{100 * found['mean']:.1f}{spread}"


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{100 * found['mean']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"


def _cost(cost: Mapping[str, Any]) -> list[str]:
    return [
        f"{cost['parameters'] / 1e6:.2f}",
        f"{cost['macs'] / 1e9:.2f}",
        f"{1e3 * cost['latency_median']:.0f}",
        f"{cost['peak_memory'] / 2**20:.0f}",
    ]


def table(result: Mapping[str, Any]) -> Group:
    """Return tables for the terminal: scores, then costs; scores × 100, mean ± deviation over seeds."""
    headings, rows = _rows(result)
    title = f"{result['numbers']['clips']} clips, headline {result['numbers']['headline']}"
    first_cost = len(headings) - len(_COSTS)
    parts = (title, [*range(first_cost)]), ("One clip", [0, *range(first_cost, len(headings))])
    return Group(*(_part(title, chosen, headings, rows) for title, chosen in parts))


def _part(title: str, chosen: Sequence[int], headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table of some of the columns, the first of them the names."""
    shown = Table(title=title, box=SIMPLE_HEAD)
    for k in chosen:
        justify: Literal["left", "right"] = "right" if k else "left"
        shown.add_column(headings[k], justify=justify, min_width=None if k else 10, overflow="fold")
    for row in rows:
        shown.add_row(*(row[k] for k in chosen))
    return shown


def markdown(result: Mapping[str, Any]) -> str:
    """Return a Markdown table, with the command that makes it."""
    headings, rows = _rows(result)
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"`{result['command']}`\n\n{body}\n"
