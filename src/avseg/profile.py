"""Profile a model on one clip: parameters, multiply-accumulates, latency and memory of each part.

``avseg profile pcmanet --visual resnet50`` prints it. Counted as papers count (:mod:`avseg.costs`) at keep ratio 1,
PCMANet has 84.15 G, against 84.157 G in its Table III, where untrained weights mask no token.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.progress import track
from rich.table import Table

from avseg.costs import OTHER, all_macs, forced_keep_ratio, memory, paper_macs, parameters, peaks, seconds, spent
from avseg.errors import ConfigError
from avseg.interface import TRAINING, AVSModel, Clip
from avseg.mel import BANDS, FRAMES
from avseg.nn.audio import EMBEDDING
from avseg.provenance import provenance, write_result

TOTAL = "total"
AUDIO = "audio"
"""The part that papers leave out: they count from the audio embeddings on."""
RATIOS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
"""Measured keep ratios; trained PCMANets are near 0.1 (its Fig. 8)."""


@dataclass(frozen=True)
class Cost:
    """Cost of a part for one clip.

    Attributes:
        parameters: Number of parameters.
        macs_paper: Multiply-accumulates as papers count them.
        macs: All multiply-accumulates.
        latency_median: Median latency in seconds.
        latency_p95: 95th percentile of latency in seconds.
        peak_memory: Peak memory in bytes while the part runs, all weights and the clip included.
    """

    parameters: int
    macs_paper: int
    macs: int
    latency_median: float
    latency_p95: float
    peak_memory: int


@dataclass(frozen=True)
class Published:
    """Cost of a model counted as in its paper: from the audio embeddings on, at keep ratio 1.

    Attributes:
        config: Settings of the model in the paper.
        parameters: Number of parameters, unused ones included.
        live: Number of parameters without unused ones.
        macs: Multiply-accumulates as papers count them.
    """

    config: dict[str, Any]
    parameters: int
    live: int
    macs: int


@dataclass(frozen=True)
class Profile:
    """Result of :func:`profile`. ``rich.print`` shows it as tables.

    Attributes:
        model: Name of the model.
        config: Settings of the model.
        classes: K.
        clip: Frames, height and width of the clip.
        device: Device of the measurement.
        runs: Number of timed calls for each keep ratio.
        costs: Keep ratio → part → cost; the last part is "total". A model without masks has one ratio.
        training: Parameters that only training needs, not included in ``costs``.
        published: Cost counted as in the paper; None if the paper reports none.
    """

    model: str
    config: dict[str, Any]
    classes: int
    clip: dict[str, int]
    device: str
    runs: int
    costs: Mapping[float, Mapping[str, Cost]]
    training: int
    published: Published | None

    def save(self, path: str | Path, command: str) -> None:
        """Write the profile as JSON, atomically.

        Args:
            path: File to write or replace.
            command: Command line that produced the profile.
        """
        path = Path(path)
        numbers = dataclasses.asdict(self)
        config = numbers.pop("config")
        document = {
            **provenance(command, self.device),
            "note": "Counts are exact. Latencies compare parts and keep ratios; where hardware.load exceeds "
            "hardware.cores, the machine was shared, and absolute times mean little.",
            "config": config,
            "numbers": numbers,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_result(path, document)

    def __rich__(self) -> Group:
        """Return a table by part and, for a model with masks, a table by keep ratio."""
        return Group(self._parts(), *([self._ratios()] if len(self.costs) > 1 else []))

    def _parts(self) -> Table:
        ratio, costs = next(iter(self.costs.items()))
        size = "x".join(str(n) for n in self.clip.values())
        table = _table(
            f"{self.model}: one clip of {size}, keep ratio {ratio:.2f}, on {self.device}", "part", *_HEADINGS
        )
        for part, cost in costs.items():
            table.add_row(part, *_cells(cost), end_section=part in (OTHER, TOTAL))
        table.caption = "MACs: as papers count, and all."
        if self.training:
            table.add_row(TRAINING, _mega(self.training), end_section=True)
            table.caption += f" The part {TRAINING} does not run at inference and is in no total."
        if (paper := self.published) is not None:
            table.add_row("its paper", _mega(paper.parameters), _giga(paper.macs), style="bold")
            table.caption += (
                " The paper, or the code of its authors, counts from the audio embeddings on"
                f"{_difference(self.config, paper.config)}; {_mega(paper.live)} M of those parameters are used."
            )
        return table

    def _ratios(self) -> Table:
        table = _table("Total by keep ratio", "keep ratio", *_HEADINGS[1:])
        for ratio, costs in self.costs.items():
            table.add_row(f"{ratio:.2f}", *_cells(costs[TOTAL])[1:])
        return table


@torch.no_grad()
def profile(
    model: AVSModel, *, frames: int = 5, height: int = 224, width: int = 224, runs: int = 10, progress: bool = False
) -> Profile:
    """Measure a model on one clip, at every keep ratio of :data:`RATIOS` if it masks tokens.

    Args:
        model: Model with any weights on any device; it is set to evaluation mode.
        frames: T of the clip.
        height: H in pixels.
        width: W in pixels.
        runs: Timed calls for each keep ratio; ratios alternate, so that other load affects them equally.
        progress: Show a progress bar.

    Raises:
        ConfigError: When a number is below 1.
    """
    if min(frames, height, width, runs) < 1:
        raise ConfigError(
            f"frames, height, width and runs must be 1 or more, got {frames}, {height}, {width} and {runs}"
        )
    model.eval()
    clip = noise(model, frames, height, width)
    masked = any(name.startswith("keep_ratio/") for name in model(clip).scalars)
    ratios = RATIOS if masked else RATIOS[:1]
    times = _times(model, clip, ratios, runs, progress)
    return Profile(
        model=model.name,
        config=dataclasses.asdict(model.config),
        classes=model.classes,
        clip={"frames": frames, "height": height, "width": width},
        device=str(clip.frames.device),
        runs=runs,
        costs={ratio: _costs(model, clip, ratio, times[ratio]) for ratio in ratios},
        training=parameters(model).get(TRAINING, 0),
        published=published(model, clip),
    )


@torch.no_grad()
def published(model: AVSModel, clip: Clip) -> Published | None:
    """Count the cost of a model as in its paper; None if the paper reports none.

    Args:
        model: It is set to evaluation mode. If the paper reports another config, a model of that config is counted.
        clip: Clip of any size; that of AVSBench is 5 frames of 224 × 224.
    """
    counted = model.published(model.config)
    if counted is None:
        return None
    config, never_run = counted
    twin = model if config == model.config else type(model)(config, model.classes).to(clip.frames.device)
    twin.eval()
    with forced_keep_ratio(twin, 1.0), paper_macs(twin) as meter:
        macs = spent(twin, clip, meter)
    live = sum(count for part, count in parameters(twin).items() if part not in (AUDIO, TRAINING))
    return Published(
        config=dataclasses.asdict(config),
        parameters=live + never_run,
        live=live,
        macs=int(sum(macs.values()) - macs.get(AUDIO, 0)),
    )


def noise(model: AVSModel, frames: int, height: int, width: int) -> Clip:
    """Return a random clip for the model. Its content affects the cost only through masks, which are forced."""
    source = torch.Generator().manual_seed(0)
    pictures = torch.randn(1, frames, 3, height, width, generator=source)
    if parameters(model).get(AUDIO):
        sound = torch.randn(1, frames, 1, FRAMES, BANDS, generator=source)
    else:
        sound = torch.randn(1, frames, getattr(model.config, "audio_dim", EMBEDDING), generator=source)
    return Clip(pictures, sound).to(next(model.parameters()).device)


def _times(
    model: AVSModel, clip: Clip, ratios: tuple[float, ...], runs: int, progress: bool
) -> dict[float, list[dict[str, float]]]:
    """Return seconds by part, for each ratio and run."""
    clock = seconds(clip.frames.device)
    times: dict[float, list[dict[str, float]]] = {ratio: [] for ratio in ratios}
    for _ in track(range(runs), "timing", console=Console(stderr=True), transient=True, disable=not progress):
        for ratio in ratios:
            with forced_keep_ratio(model, ratio):
                times[ratio].append(spent(model, clip, clock))
    return times


def _costs(model: AVSModel, clip: Clip, ratio: float, times: list[dict[str, float]]) -> dict[str, Cost]:
    """Return the cost of each part and the total."""
    with forced_keep_ratio(model, ratio):
        with paper_macs(model) as meter:
            by_paper = _with_total(spent(model, clip, meter))
        with all_macs() as meter:
            in_all = _with_total(spent(model, clip, meter))
        with memory(model, clip) as gauge:
            most = _with_total(peaks(model, clip, gauge), max)
    owned = _with_total({part: count for part, count in parameters(model).items() if part != TRAINING})
    timed = [_with_total(t) for t in times]
    return {
        part: Cost(
            parameters=int(owned[part]),
            macs_paper=int(by_paper[part]),
            macs=int(in_all[part]),
            latency_median=float(np.median([t[part] for t in timed])),
            latency_p95=float(np.quantile([t[part] for t in timed], 0.95)),
            peak_memory=int(most[part]),
        )
        for part in owned
    }


def _with_total(by_part: Mapping[str, float], combine: Callable[..., float] = sum) -> dict[str, float]:
    return {**by_part, TOTAL: combine(by_part.values())}


_HEADINGS = ("params/M", "MACs/G", "all/G", "median/ms", "95 %/ms", "peak/MiB")


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, width=80)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _cells(cost: Cost) -> list[str]:
    """Return the cells of one row under :data:`_HEADINGS`."""
    times = (f"{1e3 * seconds:.1f}" for seconds in (cost.latency_median, cost.latency_p95))
    peak = f"{cost.peak_memory / 2**20:.0f}"
    return [_mega(cost.parameters), _giga(cost.macs_paper), _giga(cost.macs), *times, peak]


def _mega(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _giga(count: int) -> str:
    return f"{count / 1e9:.2f}"


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return the settings in which the paper's model differs, as the end of a sentence."""
    return "".join(f", with {name}={value!r}" for name, value in theirs.items() if value != ours[name])
