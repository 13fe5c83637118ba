"""What a model costs for one clip: parameters, multiply-accumulates, latency and memory, part by part.

``avseg profile pcmanet --visual resnet50`` prints it. Counted as papers count (:mod:`avseg.costs`) at keep ratio 1,
PCMANet's 84.15 G are the 84.157 G of its Table III: on untrained weights no token is confident, so nothing is masked.
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
"""The part papers leave out: they begin at the embeddings of the sound."""
RATIOS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
"""Keep ratios tried; training PCMANet ends near 0.1 (its Fig. 8)."""


@dataclass(frozen=True)
class Cost:
    """What a part takes for one clip.

    Attributes:
        parameters: Number of them.
        macs_paper: Multiply-accumulates as papers count them.
        macs: All multiply-accumulates.
        latency_median: Seconds.
        latency_p95: Seconds; one call in twenty takes longer.
        peak_memory: Bytes in use at most while it runs, all weights and the clip included.
    """

    parameters: int
    macs_paper: int
    macs: int
    latency_median: float
    latency_p95: float
    peak_memory: int


@dataclass(frozen=True)
class Published:
    """The model as its paper counted it: from the embeddings of the sound on, at keep ratio 1.

    Attributes:
        config: What the paper measured.
        parameters: Their number, with those that take no part in any answer.
        live: Their number, without those.
        macs: Multiply-accumulates as papers count them.
    """

    config: dict[str, Any]
    parameters: int
    live: int
    macs: int


@dataclass(frozen=True)
class Profile:
    """What :func:`profile` found. ``rich.print`` shows it as tables.

    Attributes:
        model: Its name.
        config: Its settings.
        classes: K.
        clip: Frames, height and width of the one clip.
        device: Where it ran.
        runs: Calls that were timed, for each keep ratio.
        costs: Keep ratio → part → cost; the part "total" comes last. One ratio alone for a model without masks.
        training: Parameters that training alone needs; what is in ``costs`` goes without them.
        published: The same as its paper counted; None if it says nothing of its cost.
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
        """Write it as JSON, in one step.

        Args:
            path: The file; it is replaced.
            command: What was typed to get it.
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
        """One table by part, and one by keep ratio for a model with masks."""
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
            table.caption += f" What {TRAINING} alone needs is never run to answer, and in no total."
        if (paper := self.published) is not None:
            table.add_row("its paper", _mega(paper.parameters), _giga(paper.macs), style="bold")
            table.caption += (
                " Its paper, or its authors' program, counts from the audio embeddings on"
                f"{_difference(self.config, paper.config)}; {_mega(paper.live)} M of those parameters are live."
            )
        return table

    def _ratios(self) -> Table:
        table = _table("What masking saves", "keep ratio", *_HEADINGS[1:])
        for ratio, costs in self.costs.items():
            table.add_row(f"{ratio:.2f}", *_cells(costs[TOTAL])[1:])
        return table


@torch.no_grad()
def profile(
    model: AVSModel, *, frames: int = 5, height: int = 224, width: int = 224, runs: int = 10, progress: bool = False
) -> Profile:
    """Count and time a model on one clip, at every keep ratio of :data:`RATIOS` if it masks tokens.

    Args:
        model: With any weights, on any device; it is put into evaluation mode.
        frames: T of the clip.
        height: H, pixels.
        width: W, pixels.
        runs: Calls to time for each keep ratio, in turns so that a busy machine slows all of them alike.
        progress: Show a bar.

    Raises:
        ConfigError: When there is nothing to run or to time.
    """
    if min(frames, height, width, runs) < 1:
        raise ConfigError(f"frames, height, width and runs begin at 1, got {frames}, {height}, {width}, {runs}")
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
    """Count a model as its paper did; None if it did not.

    Args:
        model: It is put into evaluation mode. If its paper measured another config, a twin of that is counted.
        clip: Of any size; AVSBench's is 5 frames of 224 × 224.
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
    """A clip the model accepts. What it shows changes the work through masks alone, and those are forced."""
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
    """Seconds by part, for each ratio and run."""
    clock = seconds(clip.frames.device)
    times: dict[float, list[dict[str, float]]] = {ratio: [] for ratio in ratios}
    for _ in track(range(runs), "timing", console=Console(stderr=True), transient=True, disable=not progress):
        for ratio in ratios:
            with forced_keep_ratio(model, ratio):
                times[ratio].append(spent(model, clip, clock))
    return times


def _costs(model: AVSModel, clip: Clip, ratio: float, times: list[dict[str, float]]) -> dict[str, Cost]:
    """The cost of each part, and of all."""
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
    """What stands under :data:`_HEADINGS`."""
    times = (f"{1e3 * seconds:.1f}" for seconds in (cost.latency_median, cost.latency_p95))
    peak = f"{cost.peak_memory / 2**20:.0f}"
    return [_mega(cost.parameters), _giga(cost.macs_paper), _giga(cost.macs), *times, peak]


def _mega(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _giga(count: int) -> str:
    return f"{count / 1e9:.2f}"


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The settings in which the paper's measurement differs, ready to follow something."""
    return "".join(f", with {name}={value!r}" for name, value in theirs.items() if value != ours[name])
