"""Writing a picture in one step: the old file or the new one, never half of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from avseg.errors import ConfigError
from avseg.files import replacing

FORMATS = ("png", "pdf", "svg", "jpg")
"""What a figure can be written as."""
FONT = "DejaVu Sans"
"""Comes with matplotlib: the same letters, hence widths, everywhere."""
_LEAST_DPI, _MOST_DPI = 36, 1200


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's matplotlibrc says."""
    # A dollar in a name is a dollar; publishers refuse fonts of Type 3.
    ours = {"font.family": FONT, "font.size": 8.0, "text.parse_math": False, "pdf.fonttype": 42}
    with style.context(["default", ours]):
        yield


def check_figure(out: Path, dpi: int) -> None:
    """Find out before the work whether :func:`write_figure` can do it.

    Raises:
        ConfigError: When the suffix is none of :data:`FORMATS`, or no picture has that many dots.
    """
    check_format(out, FORMATS)
    if not _LEAST_DPI <= dpi <= _MOST_DPI:
        raise ConfigError(f"dpi must lie in {_LEAST_DPI} … {_MOST_DPI}, got {dpi}")


def check_format(out: Path, formats: Sequence[str]) -> None:
    """Refuse a suffix that is none of ``formats``; ``.jpeg`` is ``.jpg``.

    Raises:
        ConfigError: When it is not.
    """
    if out.suffix.lower().replace("jpeg", "jpg").removeprefix(".") not in formats:
        *some, last = (f".{name}" for name in formats)
        raise ConfigError(f"cannot write a picture to {str(out)!r}, give a {', '.join(some)} or {last}")


def write_figure(figure: Figure, out: Path, dpi: int) -> Path:
    """Write a figure of matplotlib.

    Raises:
        ConfigError: When the file cannot be written.
    """
    jpeg = {"pil_kwargs": {"quality": 95, "subsampling": 0}}
    options: dict[str, Any] = jpeg if out.suffix.lower().startswith(".jp") else {}

    def save(temporary: Path) -> None:
        with styled():
            figure.savefig(temporary, dpi=dpi, **options)

    return write_picture(out, save)


def write_picture(out: Path, save: Callable[[Path], object]) -> Path:
    """Write a picture with ``save``, completely or not at all.

    Args:
        out: The file.
        save: Writes the picture to the path it is called with.

    Raises:
        ConfigError: When the file cannot be written.
    """
    try:
        with replacing(out) as temporary:
            save(temporary)
    except OSError as error:
        raise ConfigError(f"cannot write {str(out)!r} ({error.strerror or error}), name another file") from error
    return out
