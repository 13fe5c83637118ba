import pytest
from matplotlib.figure import Figure

from avseg.errors import ConfigError
from avseg.figures.files import check_figure, check_format, write_figure, write_picture

STARTS = {
    "png": b"\x89PNG",
    "pdf": b"%PDF",
    "svg": b"<?xml",
    "jpg": b"\xff\xd8",
    "jpeg": b"\xff\xd8",
    "PNG": b"\x89PNG",
}


@pytest.mark.parametrize("suffix", STARTS)
def test_suffix_selects_format(tmp_path, suffix):
    out = tmp_path / "new" / f"figure.{suffix}"
    check_figure(out, 72)
    write_figure(Figure(figsize=(1, 1)), out, 72)
    assert out.read_bytes().startswith(STARTS[suffix])
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_wrong_suffix_or_dpi_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"give a \.png, \.pdf, \.svg or \.jpg"):
        check_figure(tmp_path / "figure.webp", 72)
    with pytest.raises(ConfigError, match=r"give a \.png or \.jpg"):
        check_format(tmp_path / "figure", ("png", "jpg"))
    with pytest.raises(ConfigError, match="dpi must lie in 36 … 1200, got 3"):
        check_figure(tmp_path / "figure.png", 3)


def test_failed_write_keeps_old_file(tmp_path):
    out = tmp_path / "figure.png"
    out.write_text("old")

    def full(beside):
        beside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match="No space left on device"):
        write_picture(out, full)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(ConfigError, match="cannot write"):
        write_figure(Figure(), out / "below.png", 72)
