"""Fig. 8 from files in the format of ``avseg train``."""

import math
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest

from avseg.cli import main
from avseg.errors import DataError
from avseg.figures.trend import read_curves, smoothed, trend
from avseg.training.curves import CurveLogger

BLUE, VERMILION, GREEN = (np.array(matplotlib.colors.to_rgb(c)) * 255 for c in ("#0072B2", "#D55E00", "#009E73"))


def run(folder: Path, steps: int = 200, score: bool = True) -> Path:
    """Write a run with decreasing keep ratios."""
    curves = CurveLogger(folder)
    for step in range(0, steps, 2):
        ratios = {f"train/keep_ratio/{i}": math.exp(-step / 20 / (5 - i)) for i in (4, 3, 2)}
        curves.log_metrics({"train/loss": 1.0 / (step + 1), **ratios}, step)
    if score:
        curves.log_metrics({"val/avsbench/j": 0.4}, steps // 2)
        curves.log_metrics({"val/avsbench/j": 0.6, "val/avsbench/f": math.nan}, steps)
    curves.finalize("success")
    return folder


def has(picture, colour):
    return (np.abs(picture - colour.round()) < 2).all(-1).any()


def test_read_curves_equals_written_values(tmp_path):
    curves = read_curves(run(tmp_path / "a"))
    assert curves["train/loss"].steps.tolist() == list(range(0, 200, 2))
    assert curves["train/loss"].values[1] == 1 / 3
    assert curves["val/avsbench/j"].values.tolist() == [0.4, 0.6]
    assert "val/avsbench/f" not in curves


def test_read_curves_ignores_incomplete_last_line(tmp_path):
    folder = run(tmp_path / "a")
    whole = read_curves(folder)
    with (folder / "metrics.csv").open("a") as file:
        file.write("200,train/lo")
    assert read_curves(folder).keys() == whole.keys()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (None, "give a folder written by avseg train"),
        ("step,name,value\n1,a,b\n", "line 2 of .*metrics.csv is not step,name,value"),
        ("step,name,value\n1,2\n", "line 2 of .*metrics.csv is not step,name,value"),
        ("step,name,value\n1,a,nan\n", "no finite number yet"),
        ("", "no finite number yet"),
    ],
)
def test_other_folder_or_file_raises(tmp_path, text, hint):
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(DataError, match=hint):
        read_curves(tmp_path)


def test_smoothed_is_centred_mean():
    values = np.random.default_rng(0).random(100)
    slow = [values[max(0, k - 3) : k + 4].mean() for k in range(100)]
    assert smoothed(values) == pytest.approx(slow)
    assert smoothed(values[:5]) == pytest.approx(values[:5])


def test_keep_ratios_and_validation_score(tmp_path, pixels):
    with_score = pixels(trend([run(tmp_path / "a")], tmp_path / "x.png", dpi=72))
    without = pixels(trend([run(tmp_path / "b", score=False)], tmp_path / "y.png", dpi=72))
    assert with_score.shape[0] == without.shape[0] + 70
    assert all(has(with_score, colour) for colour in (BLUE, VERMILION, GREEN))
    below = with_score[-70:]
    assert has(below, BLUE)
    assert not has(below, GREEN)


@pytest.mark.slow
def test_runs_in_panels_or_chained(tmp_path, pixels):
    runs = [run(tmp_path / f"run{k}", steps) for k, steps in enumerate((100, 200, 60, 80))]
    one, four = (pixels(trend(r, tmp_path / "x.png", dpi=72)).shape for r in (runs[:1], runs))
    chained = pixels(trend(runs, tmp_path / "x.png", chain=True, dpi=72)).shape
    assert one[0] == chained[0]
    assert one[1] < chained[1] == four[1] == 504
    assert four[0] == one[0] + 210


def test_scalar_by_name_and_missing_scalar(tmp_path, capsys, pixels):
    runs = [str(run(tmp_path / "a")), str(run(tmp_path / "b", score=False))]
    out = tmp_path / "x.png"
    assert main(["figures", "trend", *runs, "-o", str(out), "--scalars", "loss", "val/*/j", "--dpi", "72"]) == 0
    assert capsys.readouterr().out == f"avseg: wrote {out}\n"
    assert has(pixels(out), BLUE)
    assert has(pixels(out), VERMILION)
    assert not has(pixels(out), GREEN)
    assert main(["figures", "trend", *runs, "-o", str(out), "--scalars", "keep_ration/4"]) == 2
    assert capsys.readouterr().err == (
        "avseg: error: no run has a scalar 'keep_ration/4'. Did you mean 'keep_ratio/4'?\n"
    )


def test_curve_of_one_point(tmp_path, pixels):
    curves = CurveLogger(tmp_path / "$run$")
    curves.log_metrics({"train/keep_ratio/4": 1.0}, 0)
    curves.finalize("success")
    assert has(pixels(trend([tmp_path / "$run$"], tmp_path / "x.png", dpi=200)), BLUE)


def test_commands_have_help(capsys):
    verbs = ("trend", "confidence", "attention", "panel")
    assert main(["figures"]) == 0
    table = capsys.readouterr().out
    assert all(f"\n  {verb} " in table for verb in verbs)
    for verb in verbs:
        assert main(["figures", verb, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: avseg figures {verb}")
    assert main(["figures", "penal"]) == 2
    assert "Did you mean 'panel'?" in capsys.readouterr().err
