"""``avseg live``: predict a live source, and show every prediction in a page or as a line of JSON."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from avseg.colours import palette
from avseg.errors import ConfigError, MediaError, did_you_mean
from avseg.fast_paths import Precision
from avseg.live.mjpeg_page import LivePage
from avseg.media import rle
from avseg.media.container import Complain, refuse
from avseg.media.live import Feed, ReceivedFeed, device_feed, feed_of, played_feed
from avseg.media.yuv import rgb_planes
from avseg.outputs._drawing import add_names, overlay
from avseg.pipeline.predict import class_names, ready
from avseg.prediction.frame_stream import Damaged, Options, Upsampling
from avseg.prediction.live_stream import LivePrediction, LiveStream, check_live
from avseg.prediction.sampling import MissingAudio, is_number

Display = Literal["page", "lines"]
Show = Callable[[LivePrediction, float], None]
"""Shows one prediction, whose latency in seconds is given."""

_DEVICES = {"linux": ("v4l2:/dev/video0", "alsa:default"), "darwin": ("avfoundation:0", "avfoundation::0")}
"""Default camera and microphone by platform; Windows has none with a fixed name."""
_PATIENCE = 5.0
"""Seconds without a picture or without sound after which a device counts as broken."""


def live_command(
    source: str | None = None,
    camera: str | None = None,
    microphone: str | None = None,
    model: str = "small",
    fps: float = 4.0,
    device: str = "cpu",
    display: Display = "page",
    port: int = 7861,
    open_browser: bool = False,
    seconds: float | None = None,
    lookahead: float = 0.0,
    context: int = 1,
    missing_audio: MissingAudio = "error",
    damaged: Damaged = "skip",
    silence_gate: float | None = -60.0,
    threshold: float = 0.5,
    upsampling: Upsampling = "guided",
    precision: Precision = "float32",
    gated: bool = False,
) -> None:
    """Segment a camera with a microphone, a pipe, or a file at its own speed, and show the masks while it runs.

    Args:
        source: "-" for the standard input, a named pipe, or a video file, which is played at its own speed; nothing for
            a camera with a microphone.
        camera: Camera as FORMAT:NAME of FFmpeg: v4l2:/dev/video0 (Linux, default), avfoundation:0 (macOS, default),
            dshow:video=NAME (Windows).
        microphone: Microphone in the same form: alsa:default, avfoundation::0, dshow:audio=NAME; none takes the sound
            of the camera's own stream.
        model: Bundled name, folder or Hub id of the model, or a file *.onnx of avseg export.
        fps: Largest number of predictions per second; fewer if the model is slower.
        device: Device of the model: cpu, cuda, mps, or auto for the fastest one.
        display: page, in a browser on this computer, or lines, one line of JSON per prediction on standard output.
        port: Port of the page; 0 takes a free one.
        open_browser: Open the page in the default browser.
        seconds: Stop after this time of the source; null runs until Ctrl+C or the end of the source.
        lookahead: Seconds of sound after the picture for which the model waits, 0 to 0.4875. With more, onsets are
            more accurate and the latency is longer.
        context: Samples in a clip: the new one and those before it.
        missing_audio: Without sound, raise an error or use silence.
        damaged: If a part of the stream cannot be decoded, skip it or raise an error.
        silence_gate: Level in dBFS of the sound below which masks are empty; null disables the gate.
        threshold: Probability above which a pixel belongs to a mask; lower values give larger masks.
        upsampling: guided, along the edges of the frame, or bilinear.
        precision: float32, or bf16, which is faster on processors that have it.
        gated: Compute the finest stage of the decoder at uncertain pixels only (PCMANet).

    Raises:
        AvsegError: When the source, the model or a setting cannot be used.
    """
    _check(display, seconds)
    check_live(lookahead, "drop", context)
    options = Options(
        fps, missing_audio, damaged, "masks", silence_gate, "refined", threshold, upsampling, precision, gated
    )
    network = ready(model, device, options.modes).network
    feed = open_source(source, camera, microphone, _note if damaged == "skip" else refuse)
    stream = LiveStream(feed, network, options, _note, lookahead=lookahead, late="drop", context=context)
    with _display(display, port, open_browser, class_names(network)) as show:
        _run(stream, show, seconds)


def _check(display: Display, seconds: float | None) -> None:
    """Raise ConfigError unless the settings of the command itself are valid."""
    if display not in (choices := get_args(Display)):
        raise ConfigError(f"unknown display {display!r}. {did_you_mean(display, choices)}")
    if seconds is not None and (not is_number(seconds) or seconds <= 0):
        raise ConfigError(f"seconds must be a number above 0, or null, got {seconds!r}")


def open_source(source: str | None, camera: str | None, microphone: str | None, complain: Complain) -> ReceivedFeed:
    """Return the feed of the source of ``avseg live``, which is not yet read; for the arguments see there.

    Raises:
        MediaError: When it cannot be opened.
        ConfigError: When both a source and a device are given.
    """
    if source is None:
        usual_camera, usual_microphone = _DEVICES.get(sys.platform, (None, None))
        chosen = camera or usual_camera
        if chosen is None:
            raise ConfigError("there is no default camera on this system: give --camera and --microphone")
        chosen_microphone = None if microphone == "none" else microphone or usual_microphone
        return ReceivedFeed(device_feed(chosen, chosen_microphone, complain), _PATIENCE)
    if camera or microphone:
        raise ConfigError("a source is given: leave out --camera and --microphone")
    found: Feed | None = feed_of(source, complain)
    return ReceivedFeed(played_feed(Path(source), complain) if found is None else found)


def description(prediction: LivePrediction, latency: float, names: tuple[str, ...]) -> dict[str, Any]:
    """Return a prediction as plain values, for a line of JSON; boxes are (left, top, width, height) in pixels."""
    regions = [
        {
            "name": names[region.label],
            "score": region.score,
            "area": rle.area(region.rle),
            "box": [int(value) for value in rle.box(region.rle)],
        }
        for region in prediction.frame.regions
    ]
    return {
        "time": round(prediction.frame.time, 3),
        "latency": round(latency, 3),
        "sound_dbfs": round(prediction.level, 1),
        "regions": regions,
    }


@contextmanager
def _display(display: Display, port: int, open_browser: bool, names: tuple[str, ...]) -> Iterator[Show]:
    if display == "lines":
        yield lambda prediction, latency: print(json.dumps(description(prediction, latency, names)), flush=True)
        return
    with LivePage(port) as page:
        print(f"avseg: open {page.address} (stop with Ctrl+C)", flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(page.address)
        yield lambda prediction, latency: _show(page, prediction, latency, names)


def _show(page: LivePage, prediction: LivePrediction, latency: float, names: tuple[str, ...]) -> None:
    image, colours = prediction.picture.rgb(), palette(len(names))
    labels = np.zeros(image.shape[:2], np.uint8)
    for region in prediction.frame.regions:
        labels[rle.decode(region.rle)] = region.label
    image = overlay(image, labels, colours)
    if len(names) > 2:
        add_names(rgb_planes(image), [region.label for region in prediction.frame.regions], names, colours)
    score = max((region.score for region in prediction.frame.regions), default=0.0)
    page.show(
        image,
        f"{prediction.frame.time:.1f} s · score {score:.2f} · sound {prediction.level:.0f} dBFS · "
        f"latency {latency:.2f} s",
    )


def _run(stream: LiveStream, show: Show, seconds: float | None) -> None:
    """Show all predictions, until Ctrl+C, and print a summary."""
    latencies: list[float] = []
    begin: float | None = None
    source = stream.source
    assert isinstance(source, ReceivedFeed)  # the command reads every source at its own speed
    try:
        for prediction in stream:
            time = prediction.frame.time
            begin = time if begin is None else begin
            latency = max(0.0, (source.now() or 0.0) - time)
            latencies.append(latency)
            show(prediction, latency)
            if seconds is not None and time - begin >= seconds:
                break
    except KeyboardInterrupt:
        pass
    if not latencies:
        raise MediaError(f"{source.name} ended before the first prediction")
    median, largest = np.median(latencies), max(latencies)
    print(
        f"avseg: {len(latencies)} predictions, {stream.dropped} left out, latency {median:.2f} s in the median, "
        f"{largest:.2f} s at most",
        file=sys.stderr,
    )


def _note(message: str) -> None:
    print(f"avseg: {message}", file=sys.stderr)
