"""``avseg predict``: the masks of the sounding objects in every frame of a video.

:mod:`avseg.prediction.frame_stream` describes the interpolation between the samples and the use of memory.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from avseg.checkpoints.store import load
from avseg.devices import check_computes, move
from avseg.errors import ConfigError
from avseg.fast_paths import Mode, Precision, optimize
from avseg.interface import AVSModel
from avseg.media.container import refuse, video_path
from avseg.media.live import Feed, Live, feed_of
from avseg.media.video import probe
from avseg.outputs import choose_outputs, file_to_open, new_result, write
from avseg.pipeline.result import Result
from avseg.prediction.frame_stream import Damaged, FrameStream, Options, Show, Timing, Upsampling
from avseg.prediction.live_stream import Late, LiveStream, check_live
from avseg.prediction.record import captioned
from avseg.prediction.regions import Frame
from avseg.prediction.sampling import MissingAudio
from avseg.progress import seconds_bar

_ROWS = 20
"""Largest number of intervals in the report; result.json has all of them."""


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
    timing: Timing = "refined",
    threshold: float = 0.5,
    upsampling: Upsampling = "guided",
    precision: Precision = "float32",
    gated: bool = False,
    peak_gate: float | None = None,
    progress: bool = False,
) -> Result:
    """Segment the sounding objects in a video.

    The model predicts ``fps`` samples per second. Every frame of the video gets a mask at its own size, interpolated in
    time between the adjacent samples (see :mod:`avseg.prediction.frame_stream`).

    Args:
        video: Any file that FFmpeg reads, of any container, codec, frame rate (also variable), rotation, size, length.
        model: A bundled name, a folder or Hub id for :func:`avseg.load`, whose exact fast path is used, a file
            ``*.onnx`` of ``avseg export``, or a model, which is put into evaluation mode on ``device``; pass
            :func:`avseg.optimize` of it to predict faster.
        fps: Samples per second of video.
        device: Device of the model: ``"cpu"``, ``"cuda"``, ``"mps"`` …, or ``"auto"`` for the fastest one.
        missing_audio: Without a sound track, raise an error (``"error"``) or use ``"silence"``.
        damaged: If a part of the file cannot be decoded, raise an error (``"error"``), or omit it and add a note
            (``"skip"``).
        show: ``"masks"``, or ``"uncertainty"`` for masks and uncertainty, of a model that estimates it.
        silence_gate: Level in dBFS of the sound below which masks are empty; None disables the gate.
        timing: Onsets and offsets from the level of the sound (``"refined"``), or from the 0.96 s window of the model
            alone (``"window"``), which widens every interval by about half a second on both sides.
        threshold: Probability above which a pixel belongs to a mask; lower values give larger masks.
        upsampling: Enlarge the probabilities along the edges of the frame (``"guided"``), or ``"bilinear"``.
        precision: ``"float32"``, or ``"bf16"`` for bfloat16, which is faster on processors that have it.
        gated: Compute the finest stage of the decoder at uncertain pixels only, see :func:`avseg.optimize`.
        peak_gate: Probability. If no pixel of a sample exceeds it, the mask of the sample is empty. None takes the
            value in the model's card, 0 disables the gate.
        progress: Show a progress bar.

    Returns:
        Masks, times, scores, intervals and, if requested, uncertainty; see :class:`~avseg.pipeline.result.Result`.

    Raises:
        MediaError: When the video cannot be used.
        ConfigError: When a setting is invalid, or the model does not estimate its uncertainty.
        CheckpointError: When the model cannot be loaded.
    """
    options = Options(
        fps, missing_audio, damaged, show, silence_gate, timing, threshold, upsampling, precision, gated, peak_gate
    )
    return _predict(video, model, device, options, progress)


class Loaded(NamedTuple):
    """A model, and the facts about it that a result records.

    Attributes:
        network: The model in evaluation mode on its device.
        name: Name that the user gave, or that of its class.
        device: Name of the device.
        weights_sha256: SHA-256 of the file of its weights; None for a model in memory.
    """

    network: AVSModel
    name: str
    device: str
    weights_sha256: str | None


def ready(model: str | Path | AVSModel, device: str, modes: Sequence[Mode] = ()) -> Loaded:
    """Return a model ready for :func:`predict_file`; for the errors see :func:`predict`.

    Args:
        model: A name or path, whose model is optimized unless it is an exported file, or a model, which is used as it
            is unless there are modes.
        device: Device it runs on.
        modes: Modes of :func:`avseg.optimize` in addition to ``exact``.
    """
    check_computes(device)
    if isinstance(model, AVSModel):
        given = move(model, device).eval()
        return Loaded(optimize(given, modes) if modes else given, model.name, device, None)
    network = load(model, device)
    weights = network.weights_sha256
    if modes or not network.optimized:  # an exported file is used as it is, and has no modes
        network = optimize(network, modes, inplace=True)
    return Loaded(network, str(model), device, weights)


def _predict(video: str | Path, model: str | Path | AVSModel, device: str, options: Options, progress: bool) -> Result:
    path = video_path(video)
    loaded = ready(model, device, options.modes)
    with seconds_bar("predicting", probe(path).duration, shown=progress) as reached:
        return predict_file(path, loaded, options, reached)


def predict_file(path: Path, loaded: Loaded, options: Options, reached: Callable[[float], None]) -> Result:
    """Return the result of one video.

    Args:
        path: The video.
        loaded: From :func:`ready`.
        options: Settings.
        reached: Called with the time of each frame that is predicted.

    Raises:
        MediaError: When the video cannot be used.
        ConfigError: When the model does not estimate its uncertainty but it is requested.
    """
    notes: list[str] = []
    frame_stream = FrameStream(path, loaded.network, options, notes.append)
    frames: list[Frame] = []
    for frame in frame_stream:
        frames.append(frame)
        reached(frame.time)
    return Result(
        path,
        frame_stream.info.size,
        class_names(loaded.network),
        frames,
        frame_stream.end,
        loaded.name,
        recorded_options(options, loaded.device),
        tuple(notes),
        loaded.weights_sha256,
    )


def recorded_options(options: Options, device: str) -> dict[str, Any]:
    """Return the settings as a result records them: the last four only where they differ from the default."""
    settings = {**dataclasses.asdict(options), "device": device}
    for name, default in (("show", "masks"), ("precision", "float32"), ("gated", False), ("peak_gate", None)):
        if settings[name] == default:
            del settings[name]
    return settings


def stream(
    video: str | Path | BinaryIO | Live | Feed,
    model: str | Path | AVSModel = "small",
    *,
    fps: float = 1.0,
    device: str = "cpu",
    missing_audio: MissingAudio = "error",
    damaged: Damaged = "error",
    show: Show = "masks",
    silence_gate: float | None = -60.0,
    timing: Timing = "refined",
    threshold: float = 0.5,
    upsampling: Upsampling = "guided",
    precision: Precision = "float32",
    gated: bool = False,
    peak_gate: float | None = None,
    lookahead: float = 0.0,
    late: Late = "wait",
    context: int = 1,
    note: Callable[[str], None] = warnings.warn,
) -> Iterator[Frame]:
    """Yield the frames of :func:`predict` one by one, each as soon as the sample after it is predicted.

    Live sources are pipes, the standard input, and a camera with a microphone. Every sample, ``fps`` per second, gives
    a frame as soon as it is predicted (see :mod:`avseg.prediction.live_stream`), and ``timing`` has no effect.

    Args:
        video: A file as for :func:`predict`, or a live source: ``"-"`` for the standard input, the path of a named
            pipe, a binary file object, :class:`avseg.Live`, or :func:`avseg.media.live.device_feed`.
        model: A name, a path or a model.
        fps: Samples per second of video.
        device: Device of the model.
        missing_audio: Behaviour without a sound track.
        damaged: Behaviour where the file cannot be decoded.
        show: With ``"uncertainty"``, frames and regions have their uncertainty.
        silence_gate: Level in dBFS of the sound below which masks are empty.
        timing: ``"refined"`` or ``"window"``.
        threshold: Probability above which a pixel belongs to a mask.
        upsampling: ``"guided"`` or ``"bilinear"``.
        precision: ``"float32"`` or ``"bf16"``.
        gated: Compute the finest stage of the decoder at uncertain pixels only.
        peak_gate: Probability. If no pixel of a sample exceeds it, the mask of the sample is empty.
        lookahead: Live sources: seconds of sound after a sample for which the model waits. With 0, the window has
            past sound only; with 0.4875, it is that of a file.
        late: Live sources: predict every sample (``"wait"``), or leave out samples when the next one has come
            (``"drop"``), which bounds the latency.
        context: Live sources: samples in a clip, the new one and those before it.
        note: Called with each warning, such as that the sound track is silent.

    Returns:
        Time and regions of every frame; ``avseg.media.rle.decode(region.rle)`` is the mask of a region.

    Raises:
        MediaError: When the video cannot be used; damage is found during the iteration.
        ConfigError: When a setting is invalid, or the model does not estimate its uncertainty.
        CheckpointError: When the model cannot be loaded.
    """
    options = Options(
        fps, missing_audio, damaged, show, silence_gate, timing, threshold, upsampling, precision, gated, peak_gate
    )
    feed = feed_of(video, note if damaged == "skip" else refuse)
    if feed is not None:
        check_live(lookahead, late, context)
        network = ready(model, device, options.modes).network
        found = LiveStream(feed, network, options, note, lookahead=lookahead, late=late, context=context)
        return (prediction.frame for prediction in found)
    if (lookahead, late, context) != (0.0, "wait", 1):
        raise ConfigError("lookahead, late and context are settings of a live source, not of a file")
    return iter(FrameStream(video_path(video), ready(model, device, options.modes).network, options, note))


def class_names(model: AVSModel) -> tuple[str, ...]:
    """Return label → name, the first being the background; names with numbers if the model's card has none."""
    if names := model.card.get("class_names"):
        return tuple(names)
    sounding = ["sounding"] if model.classes == 1 else [f"class {k}" for k in range(1, model.classes)]
    return ("background", *sounding)


def predict_command(
    video: Path,
    output: Path | None = None,
    model: str = "small",
    device: str = "cpu",
    options: Options = Options(),
    save: str | None = None,
    overwrite: bool = False,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Segment the sounding objects in a video.

    Args:
        video: The video file.
        output: Folder for overlay.mp4, masks/, summary.png and result.json; <name of the video>_avseg by default.
        model: Bundled name, folder or Hub id of the model, or a file *.onnx of avseg export.
        device: Device of the model: cpu, cuda, mps, or auto for the fastest one.
        options: Settings of the prediction.
        save: Comma-separated outputs to write: overlay, masks, summary, json, uncertainty, page, alpha, matte,
            cutout, redact, frames, coco, labelme, csv, srt, edl, npz, or outputs of other installed packages; null for
            the first four, and uncertainty if it is shown.
        overwrite: Replace an earlier result in the output folder.
        settings: Output → its settings.

    Raises:
        AvsegError: When the video, the model, the folder or a setting cannot be used.
    """
    started = perf_counter()
    folder = output or Path(f"{video.stem}_avseg")
    names = choose_outputs(save, uncertainty=options.show == "uncertainty", settings=settings)
    with new_result(folder, names, overwrite=overwrite, video=video) as partial:
        result = _predict(video, model, device, options, progress=True)
        write(result, partial, names, progress=True)
    _report(result, folder, perf_counter() - started, file_to_open(folder, names))


def _report(result: Result, folder: Path, elapsed: float, to_open: Path) -> None:
    console = Console(highlight=False)
    length = result.end - result.times[0]
    table = Table("from", "to", "object", box=None, header_style="dim", pad_edge=False)
    for start, end, name in captioned(result)[:_ROWS]:
        table.add_row(f"{start:.2f} s", f"{end:.2f} s", escape(name))
    if result.intervals:
        console.print(table)
    if (more := len(result.intervals) - _ROWS) > 0:
        console.print(f"and {more} more")
    if not result.intervals:
        console.print("no sounding object")
    if result.has_uncertainty:
        means = result.mean_uncertainty
        most = int(means.argmax())
        console.print(
            f"uncertainty {means.mean():.2f} on average, {means[most]:.2f} at most (at {result.times[most]:.2f} s)"
        )
    for note in result.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
    console.print(
        f"{escape(str(folder))}: {len(result.frames)} masks for {length:.1f} s of video in {elapsed:.1f} s, "
        f"{length / elapsed:.2f} times real time",
        soft_wrap=True,
    )
    console.print(f"open {escape(str(to_open))}", soft_wrap=True)
