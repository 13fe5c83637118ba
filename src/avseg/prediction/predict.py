"""``avseg predict``: a video goes in, a mask of what sounds comes out for every picture.

How frames between the model's samples get their masks, and what is held in memory, stands in
:mod:`avseg.prediction.frame_stream`.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from avseg.checkpoints.store import load
from avseg.devices import move
from avseg.files import replacing_folder
from avseg.interface import AVSModel
from avseg.media.container import video_path
from avseg.outputs import choose_outputs, patterns, write
from avseg.prediction.frame_stream import Damaged, FrameStream, Options, Show
from avseg.prediction.regions import Frame
from avseg.prediction.result import Result
from avseg.prediction.sampling import MissingAudio
from avseg.progress import seconds_bar

_ROWS = 20
"""Intervals the command line lists at most; all are in result.json."""


def predict(
    video: str | Path,
    model: str | Path | AVSModel = "small",
    *,
    fps: float = 1.0,
    device: str = "cpu",
    missing_audio: MissingAudio = "error",
    damaged: Damaged = "error",
    show: Show = "masks",
    silence_gate: float | None = -60.0,
    progress: bool = False,
) -> Result:
    """Find what sounds in a video.

    The model looks and listens once per second, or ``fps`` times; every picture of the video gets a mask at its own
    size, blended in time between the samples around it (see :mod:`avseg.prediction.frame_stream`).

    Args:
        video: Any file FFmpeg reads: container, codec, frame rate (also variable), rotation, size, length.
        model: A bundled name, a folder or Hub id for :func:`avseg.load`, or a model, which is put into evaluation
            mode on ``device``.
        fps: Samples per second of video.
        device: Where the model runs: ``"cpu"``, ``"cuda"``, ``"mps"`` …, or ``"auto"`` for the fastest one.
        missing_audio: Without a sound track, refuse (``"error"``), or let the model hear ``"silence"``.
        damaged: Where something cannot be decoded, refuse (``"error"``), or leave that part out and note it
            (``"skip"``).
        show: The ``"masks"``, or, of a model that estimates it, the ``"uncertainty"`` as well.
        silence_gate: Level in dBFS below which nothing is marked; ``None`` marks what the model predicts.
        progress: Show a bar.

    Returns:
        Masks, times, scores, intervals, uncertainty if asked for; ``.plot()``, ``.save(folder)``, ``.to_coco()``.

    Raises:
        MediaError: When the video cannot be used; says why.
        ConfigError: When a setting cannot work, or the model does not estimate its uncertainty.
        CheckpointError: When the model cannot be loaded.
    """
    options = Options(fps, missing_audio, damaged, show, silence_gate)
    path = video_path(video)
    network = _ready(model, device)
    notes: list[str] = []
    frame_stream = FrameStream(path, network, options, notes.append)
    frames: list[Frame] = []
    with seconds_bar("listening", frame_stream.info.duration, shown=progress) as reached:
        for frame in frame_stream:
            frames.append(frame)
            reached(frame.time)
    name = network.name if isinstance(model, AVSModel) else str(model)
    settings = {**dataclasses.asdict(options), "device": device}
    if show == "masks":
        del settings["show"]  # what is always shown needs no record
    return Result(
        path,
        frame_stream.info.size,
        class_names(network),
        frames,
        frame_stream.end,
        name,
        settings,
        tuple(notes),
    )


def stream(
    video: str | Path,
    model: str | Path | AVSModel = "small",
    *,
    fps: float = 1.0,
    device: str = "cpu",
    missing_audio: MissingAudio = "error",
    damaged: Damaged = "error",
    show: Show = "masks",
    silence_gate: float | None = -60.0,
    note: Callable[[str], None] = warnings.warn,
) -> Iterator[Frame]:
    """Like :func:`predict`, one frame after the other, as soon as the sample after it is answered.

    Args:
        video: See :func:`predict`, as for all the others.
        model: A name, a path or a model.
        fps: Samples per second of video.
        device: Where the model runs.
        missing_audio: What to do without a sound track.
        damaged: What to do with what cannot be decoded.
        show: With ``"uncertainty"``, a frame and its regions tell theirs.
        silence_gate: Level in dBFS below which nothing is marked.
        note: Is told what the user should know, such as that the sound is silent.

    Returns:
        For every picture its time and regions; ``avseg.media.rle.decode(region.rle)`` is a region's mask.

    Raises:
        MediaError: When the video cannot be used; damage is found on the way.
        ConfigError: When a setting cannot work, or the model does not estimate its uncertainty.
        CheckpointError: When the model cannot be loaded.
    """
    options = Options(fps, missing_audio, damaged, show, silence_gate)
    return iter(FrameStream(video_path(video), _ready(model, device), options, note))


def class_names(model: AVSModel) -> tuple[str, ...]:
    """Label → name, the first being the background; numbers when the model's card names none."""
    if names := model.card.get("class_names"):
        return tuple(names)
    sounding = ["sounding"] if model.classes == 1 else [f"class {k}" for k in range(1, model.classes)]
    return ("background", *sounding)


def predict_command(
    video: Path,
    output: Path | None = None,
    model: str = "small",
    fps: float = 1.0,
    device: str = "cpu",
    missing_audio: MissingAudio = "error",
    damaged: Damaged = "error",
    show: Show = "masks",
    silence_gate: float | None = -60.0,
    save: str | None = None,
    overwrite: bool = False,
) -> None:
    """Mark what sounds in a video.

    Args:
        video: The video file.
        output: Folder for overlay.mp4, masks/, summary.png and result.json; <name of the video>_avseg if left out.
        model: Bundled name, folder or Hub id of the model.
        fps: How many times per second of video the model looks and listens.
        device: Where the model runs: cpu, cuda, mps, or auto for the fastest one.
        missing_audio: Without a sound track, refuse (error) or let the model hear silence.
        damaged: Where the file cannot be decoded, refuse (error) or skip that part.
        show: The masks, or, of a model that estimates it, its uncertainty as well: a veil of stripes in overlay.mp4,
            grey pictures in uncertainty/, rows in summary.png.
        silence_gate: Level in dBFS below which nothing is marked; null marks what the model predicts.
        save: Outputs to write, with commas between them: overlay, masks, summary, json, uncertainty, or those of
            installed packages; null for the first four, and uncertainty if it is shown.
        overwrite: Replace an earlier result in the output folder.

    Raises:
        AvsegError: When video, model, folder or a setting cannot be used.
    """
    started = perf_counter()
    folder = output or Path(f"{video.stem}_avseg")
    names = choose_outputs(save, uncertainty=show == "uncertainty")
    with replacing_folder(folder, patterns(names), overwrite=overwrite, keep=[video]) as partial:
        result = predict(
            video,
            model,
            fps=fps,
            device=device,
            missing_audio=missing_audio,
            damaged=damaged,
            show=show,
            silence_gate=silence_gate,
            progress=True,
        )
        write(result, partial, names, progress=True)
    _report(result, folder, perf_counter() - started)


def _ready(model: str | Path | AVSModel, device: str) -> AVSModel:
    return move(model, device).eval() if isinstance(model, AVSModel) else load(model, device)


def _report(result: Result, folder: Path, elapsed: float) -> None:
    console = Console(highlight=False)
    length = result.end - result.times[0]
    table = Table("from", "to", "what sounds", box=None, header_style="dim", pad_edge=False)
    for start, end, name in result.intervals[:_ROWS]:
        table.add_row(f"{start:.2f} s", f"{end:.2f} s", escape(name))
    if result.intervals:
        console.print(table)
    if (more := len(result.intervals) - _ROWS) > 0:
        console.print(f"and {more} more, see result.json")
    if not result.intervals:
        console.print("nothing sounds")
    if result.has_uncertainty:
        doubt = result.mean_uncertainty
        most = int(doubt.argmax())
        console.print(
            f"uncertainty {doubt.mean():.2f} on average, {doubt[most]:.2f} at most (at {result.times[most]:.2f} s)"
        )
    for note in result.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
    console.print(
        f"{escape(str(folder))}: {len(result.frames)} masks for {length:.1f} s of video in {elapsed:.1f} s, "
        f"{length / elapsed:.2f} times real time",
        soft_wrap=True,
    )
