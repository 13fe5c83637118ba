"""Parts of the page of :mod:`avseg.outputs.page` as HTML: facts, timeline, table of intervals, links, settings."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avseg.colours import colour
from avseg.media.container import ignore
from avseg.media.sound import Sound, sound_blocks
from avseg.mel import FRAMES, OFFSET, PATCH_SECONDS
from avseg.outputs.json import FILE
from avseg.prediction.record import Interval, Record

_COLUMNS = 1600
"""Columns of a spectrogram or curve above which neighbours are averaged."""
_REDUCTIONS = tuple(n for n in range(1, FRAMES + 1) if FRAMES % n == 0)
"""Numbers of columns of one log-mel patch that can be averaged."""
_TICKS = 8
"""Largest number of labels on the time axis."""
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds between two labels."""


def facts(record: Record) -> str:
    """Return model, size, length and notes."""
    height, width = record.size
    length = record.end - record.times[0]
    count = len(record.intervals)
    words = [
        f"model {record.model}",
        f"{width} by {height} pixels",
        f"{length:.1f} s",
        f"{len(record.frames)} frames",
        f"{count} interval{'' if count == 1 else 's'}",
    ]
    notes = "".join(f'<p class="note">Note: {escape(note)}</p>' for note in record.notes)
    return f"<p>{escape(' · '.join(words))}</p>{notes}"


def timeline(record: Record, *, has_sound: bool) -> str:
    """Return the rows of the timeline: spectrogram, curves, intervals of each class, time axis."""
    if has_sound:
        png = b64encode(spectrogram_png(spectrogram(record))).decode()
        sound = f'<img src="data:image/png;base64,{png}" alt="Log-mel spectrogram, 125 Hz to 7.5 kHz">'
    else:
        sound = '<p class="empty">no sound track</p>'
    rows = [_row("sound", "sound", sound), _row("score", "curve", _curve(record, record.scores))]
    if record.has_uncertainty:
        rows.append(_row("uncertainty", "curve", _curve(record, record.mean_uncertainty)))
    for label in np.flatnonzero(record.areas.any(0)).tolist():
        pairs = zip(record.intervals, record.captions, strict=True)
        found = [(interval, caption) for interval, caption in pairs if interval.name == record.class_names[label]]
        rows.append(_row(record.class_names[label], "bars", _bars(record, found, _hex(label)), _hex(label)))
    if not record.areas.any():
        rows.append(_row("intervals", "bars", '<p class="empty">no sounding object</p>'))
    return "\n".join([*rows, _axis(record)])


def intervals(record: Record) -> str:
    """Return the rows of the table of intervals."""
    if not record.intervals:
        return '<tr><td colspan="3">no sounding object</td></tr>'
    return "\n".join(
        f'<tr><td><button type="button" data-seek="{start:.3f}">{start:.2f} s</button></td><td>{end:.2f} s</td>'
        f"<td>{_swatch(_hex(record.class_names.index(name)))}{escape(caption)}</td></tr>"
        for (start, end, name), caption in zip(record.intervals, record.captions, strict=True)
    )


def links(written: Mapping[str, Sequence[str]]) -> str:
    """Return links to the files of the other outputs; files in a folder have one link, to the first of them.

    Args:
        written: Name → files of the chosen outputs, see :attr:`avseg.outputs.Output.written`.
    """
    others = {name: (FILE,) if name == "json" else found for name, found in written.items() if name != "page"}
    items = []
    for name, found in others.items():
        single = [file for file in found if "/" not in file]
        folders = dict.fromkeys(file.rpartition("/")[0] for file in found if "/" in file)
        items += [_link(file, file, name) for file in single]
        for folder in folders:
            inside = [file for file in found if file.rpartition("/")[0] == folder]
            items.append(_link(inside[0], f"{folder}/ ({len(inside)} files)", name))
    return "\n".join(items) or "<li>none</li>"


def settings(record: Record) -> str:
    """Return the settings of the prediction as a definition list."""
    shown = {"source": record.source.name, "model": record.model, **record.options}
    return "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in shown.items())


def spectrogram(record: Record) -> NDArray[np.float32]:
    """Return the log-mel spectrogram of the whole video, (64, columns), the lowest band first.

    A column is 10 ms, or the average of as many as keep the number of columns near :data:`_COLUMNS`, at most 0.96 s.
    """
    start, length = float(record.times[0]), record.end - float(record.times[0])
    count = max(1, int(np.ceil(length / PATCH_SECONDS)))
    reduction = next((n for n in _REDUCTIONS if count * FRAMES <= n * _COLUMNS), FRAMES)
    sound = Sound(sound_blocks(record.source, ignore))
    patches = (sound.log_mel_at(start + (k + 0.5) * PATCH_SECONDS)[0].numpy() for k in range(count))
    columns = np.concatenate([patch.reshape(-1, reduction, patch.shape[-1]).mean(1) for patch in patches])
    kept = max(1, round(length / PATCH_SECONDS * FRAMES / reduction))
    return np.asarray(columns[:kept].T, np.float32)


def spectrogram_png(bands: NDArray[np.float32]) -> bytes:
    """Return a PNG with the colours of magma, dark for silence; the lowest band is the bottom row.

    Args:
        bands: (64, columns), from :func:`spectrogram`.
    """
    from matplotlib import colormaps  # half a second, which only a page needs

    lowest = float(np.log(OFFSET))
    levels = np.clip((bands - lowest) / max(float(bands.max()) - lowest, 1e-3), 0.0, 1.0)
    image = Image.fromarray(np.round(levels[::-1] * 255).astype(np.uint8), "P")
    colours = colormaps["magma"](np.arange(256), bytes=True)[:, :3]
    image.putpalette(colours.astype(np.uint8).tobytes())
    png = BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue()


def steps(times: NDArray[np.float64], values: NDArray[np.float64], start: float, end: float) -> str:
    """Return an SVG path of the area below a step curve, in a box of 1000 × 100.

    Args:
        times: (N,) start of the frames in seconds.
        values: (N,) 0..1. More than :data:`_COLUMNS` are averaged in groups.
        start: Left end of the box in seconds.
        end: Right end of the box in seconds.
    """
    group = -(-len(times) // _COLUMNS)
    first = np.arange(0, len(times), group)
    heights = np.add.reduceat(values, first) / np.diff(np.append(first, len(times)))
    x = np.round((np.append(times[first], end) - start) / (end - start) * 1000, 2)
    y = np.round(100 - 100 * np.clip(heights, 0.0, 1.0), 2)
    path = "".join(f"V{level:g}H{right:g}" for level, right in zip(y, x[1:], strict=True))
    return f"M{x[0]:g},100{path}V100Z"


def ticks(start: float, end: float) -> list[float]:
    """Return the times of the labels of an axis, at most :data:`_TICKS` + 1 multiples of a round number of seconds."""
    step = next((s for s in _STEPS if (end - start) / s <= _TICKS), _STEPS[-1])
    return [float(k * step) for k in range(int(np.ceil(start / step)), int(np.floor(end / step)) + 1)]


def _curve(record: Record, values: NDArray[np.float64]) -> str:
    path = steps(record.times, values, float(record.times[0]), record.end)
    text = f"mean {values.mean():.2f}, largest {values.max():.2f}"
    box = 'viewBox="0 0 1000 100" preserveAspectRatio="none"'
    return f'<svg {box} role="img" aria-label="{text}"><path d="{path}"/></svg>'


def _bars(record: Record, found: Sequence[tuple[Interval, str]], fill: str) -> str:
    return "".join(
        f'<span class="bar" title="{escape(caption)}, {start:.2f} to {end:.2f} s" '
        f'style="left:{_percent(record, start)};width:{100 * (end - start) / (record.end - record.times[0]):.3f}%;'
        f'background:{fill}"></span>'
        for (start, end, _), caption in found
    )


def _axis(record: Record) -> str:
    start = float(record.times[0])
    labels = "".join(
        f'<span style="left:{_percent(record, time)}">{_clock(time)}</span>' for time in ticks(start, record.end)
    )
    return f'<div class="row axis"><span class="label">seconds</span><div class="plot">{labels}</div></div>'


def _clock(time: float) -> str:
    """Return seconds below two minutes, minutes and seconds above."""
    return f"{time:g}" if time < 120 else f"{int(time) // 60}:{int(time) % 60:02d}"


def _percent(record: Record, time: float) -> str:
    start = float(record.times[0])
    return f"{100 * (time - start) / (record.end - start):.3f}%"


def _row(name: str, kind: str, plot: str, fill: str | None = None) -> str:
    swatch = "" if fill is None else _swatch(fill)
    return (
        f'<div class="row {kind}"><span class="label">{swatch}{escape(name)}</span><div class="plot">{plot}</div></div>'
    )


def _swatch(fill: str) -> str:
    return f'<span class="swatch" style="background:{fill}"></span>'


def _link(file: str, text: str, name: str) -> str:
    link = f'<a href="{quote(file)}" target="_blank" rel="noopener">{escape(text)}</a>'
    return f'<li>{link} <span class="kind">{escape(name)}</span></li>'


def _hex(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour(label))
