"""Write image files atomically."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from avseg.errors import ConfigError
from avseg.files import replacing

FORMATS = ("png", "pdf", "svg", "jpg")
"""File formats of figures."""
FONT = "DejaVu Sans"
"""Part of matplotlib, so that text has the same width on every machine."""
_LEAST_DPI, _MOST_DPI = 36, 1200


@contextmanager
def styled() -> Iterator[None]:
    """Use matplotlib's defaults with our changes, independent of the user's matplotlibrc."""
    # No formulas, as names may contain dollar signs; publishers reject Type 3 fonts.
    ours = {"font.family": FONT, "font.size": 8.0, "text.parse_math": False, "pdf.fonttype": 42}
    with style.context(["default", ours]):
        yield


def check_figure(out: Path, dpi: int) -> None:
    """Check suffix and resolution before the computation of a figure.

    Raises:
        ConfigError: When the suffix is not in :data:`FORMATS`, or the resolution is out of range.
    """
    check_format(out, FORMATS)
    if not _LEAST_DPI <= dpi <= _MOST_DPI:
        raise ConfigError(f"dpi must lie in {_LEAST_DPI} … {_MOST_DPI}, got {dpi}")


def check_format(out: Path, formats: Sequence[str]) -> None:
    """Check the suffix of a file; ``.jpeg`` counts as ``.jpg``.

    Raises:
        ConfigError: When the suffix is not in ``formats``.
    """
    if out.suffix.lower().replace("jpeg", "jpg").removeprefix(".") not in formats:
        *some, last = (f".{name}" for name in formats)
        raise ConfigError(f"cannot write an image to {str(out)!r}, give a {', '.join(some)} or {last}")


def write_figure(figure: Figure, out: Path, dpi: int) -> Path:
    """Write a matplotlib figure.

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
    """Write a file atomically: ``save`` writes a temporary file, which then replaces ``out``.

    Raises:
        ConfigError: When the file cannot be written.
    """
    try:
        with replacing(out) as temporary:
            save(temporary)
    except OSError as error:
        raise ConfigError(f"cannot write {str(out)!r} ({error.strerror or error}), give another file") from error
    return out
