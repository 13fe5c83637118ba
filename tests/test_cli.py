"""The command line: printed text and exit codes."""

import io
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import avseg
from avseg import cli
from avseg.cli import VERBS, main
from avseg.commands import lists
from avseg.errors import AvsegWarning
from avseg.model_folder import save
from avseg.models import list_models, model_class

WORDS = ["--visual", "pvt_v2_b0", "--audio", "compact", "--channels", "8"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An untrained model on disk."""
    model = avseg.build("pcmanet", visual="pvt_v2_b0", audio="compact", train_audio=True, channels=8)
    data = {"name": "synthetic", "variant": "ms3", "size": 32, "frames": 2, "test": 2}
    return save(model, tmp_path / "tiny", data=data, class_names=("background", "sounding"))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", ["train", "eval", "predict", "profile", "convert", "models", "datasets", "data show"])
def test_every_command_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: avseg {verb}")
    assert "`" not in text


def test_training_help_lists_fields_types_and_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model.name", "pcmanet", "--data.name", "synthetic", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--model.confidence CONFIDENCE c, the threshold of CIM. (type: float, default: 0.99)" in text
    assert "--data.frames FRAMES T, seconds per clip. (type: int, default: 5)" in text
    assert "--train.epochs EPOCHS Passes over the training data. (type: int, default: 15)" in text


def test_warnings_of_avseg_are_notes_of_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(VERBS, "models", lambda words: warnings.warn("slow here", AvsegWarning, stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["models"]) == 0
    assert capsys.readouterr().err == "avseg: note: slow here\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split()[0] == "avseg"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("trian", "unknown command 'trian'. Did you mean 'train'?"),
        ("data sohw", "unknown command 'data sohw'. Did you mean 'show'?"),
        ("train --model.name pcmnet", "unknown model 'pcmnet'. Did you mean 'pcmanet'?"),
        ("train --data.name synthtic", "unknown data set 'synthtic'. Did you mean 'synthetic'?"),
        ("train --model.chanels 8", "Did you mean 'model.channels'?"),
        ("train --train.epochs 0", "train.epochs must be 1 or more, got 0"),
        ("train --train.lr 0", "train.lr"),
        ("train --config nothing.yaml", "cannot read config 'nothing.yaml'"),
        ("eval", "required: checkpoint"),
        ("eval nothing", "no model 'nothing'"),
        ("profile pcmanet --visual resnet7", "Did you mean 'resnet"),
        ("profile pcmanet --groups 7", "channels = 256"),
        ("convert nothing.pth -o out", "nothing.pth"),
        ("convert nothing.pth", "required: output"),
        ("models pcmanet", "unrecognized arguments: pcmanet"),
        ("data show", "required: out"),
        ("data show --data.szie 3 -o a.png", "Did you mean 'data.size'?"),
    ],
)
def test_user_error_prints_one_line_and_exits_with_2(
    command: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("avseg: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_debug_raises_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(avseg.AvsegError):
        main(["trian", "--debug"])


def test_module_run_returns_exit_code_and_message(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-m", "avseg", "trian"], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "avseg: error: unknown command 'trian'. Did you mean 'train'?\n"


def test_help_does_not_import_torch() -> None:
    check = "import sys; from avseg.cli import main; main([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True).returncode == 0


def test_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(argv: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "models", interrupt)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "avseg: interrupted\n"


def test_models_and_datasets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "pcmanet     arXiv 2406.02345" in capsys.readouterr().out
    assert main(["datasets"]) == 0
    assert "\nsynthetic " in capsys.readouterr().out


def test_models_lists_paper_and_summary_of_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_models()
    for line, name in zip(lines, list_models(), strict=True):
        found = model_class(name)
        assert line.endswith((found.__doc__ or "").partition("\n")[0])
        assert f"arXiv {found.paper} " in line


@pytest.mark.parametrize("paper", ["", "none"])
def test_models_prints_no_paper(
    paper: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lists, "_described", lambda name: (paper, "A model."))
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split(maxsplit=1)[1] == "no paper          A model."


LIGHT = [
    "models", "datasets", "recipes", "train --help", "eval --help", "bench --help", "predict --help", "app --help",
    "live --help", "profile tpavi --help", "convert --help", "export --help", "data show --help", "data check --help",
    "data compose --help", "data prepare --help", "figures trend --help", "figures confidence --help",
    "figures attention --help", "figures panel --help", "train --model cpm --data avss --help",
]  # fmt: skip


def test_lists_and_help_import_no_torch() -> None:
    """Importing torch takes over a second of CPU time."""
    check = f"""
import sys
from avseg.cli import main
for line in {LIGHT!r}:
    assert main(line.split()) == 0, line
    assert "torch" not in sys.modules, line
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_list_of_light_help() -> None:
    assert {line.split()[0] for line in LIGHT} == VERBS.keys()


@pytest.mark.slow
def test_predict_imports_no_training_and_no_plotting() -> None:
    check = """
import sys
import avseg.pipeline.predict
from avseg.outputs import list_outputs, output_class
for name in list_outputs():
    output_class(name)
from avseg.models import list_models, model_class
for name in list_models():
    model_class(name)
for heavy in ("lightning", "tensorboard", "matplotlib", "torchmetrics", "jsonargparse"):
    assert heavy not in sys.modules, heavy
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_eval_reads_the_data_set_from_the_card(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "scores.json"
    assert main(["eval", str(tiny), "-o", str(report), "--data.test", "3", "--negatives", "false"]) == 0
    assert "3 clips, 6 frames" in capsys.readouterr().out
    assert '"size": 32' in report.read_text()


def test_eval_reads_the_data_set_from_the_card_of_a_bundled_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "small", "--data.root", str(tmp_path / "stock")]) == 2
    assert f"no {tmp_path / 'stock' / 'classes.yaml'}: expected the list of classes" in capsys.readouterr().err


def test_help_of_eval_has_the_settings_of_a_model_without_recorded_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = avseg.build("pcmanet", visual="pvt_v2_b0", audio="compact", train_audio=True, channels=8)
    folder = save(model, tmp_path / "no_data", data=None)
    assert main(["eval", str(folder), "--help"]) == 0
    assert "--data.variant" in capsys.readouterr().out


@pytest.mark.slow
def test_profile_accepts_a_name_and_a_folder(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--height", "32", "--width", "32", "--frames", "2", "--runs", "1"]
    assert main(["profile", "pcmanet", *WORDS, *size, "-o", str(tmp_path / "a.json")]) == 0
    assert main(["profile", str(tiny), *size]) == 0
    assert capsys.readouterr().out.count("pcmanet: one clip of 2x32x32") == 2
    assert "avseg profile pcmanet --visual pvt_v2_b0" in (tmp_path / "a.json").read_text()


def test_data_show_writes_an_image(tmp_path: Path) -> None:
    words = ["--data.size", "32", "--data.frames", "2", "--clips", "1", "-o", str(tmp_path / "sheet.png")]
    assert main(["data", "show", *words]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_unwritable_folder_prints_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    words = ["--model.audio", "compact", "--model.train_audio", "true", "--model.visual", "pvt_v2_b0"]
    words += ["--model.channels", "8", "--data.size", "32", "--train.accelerator", "cpu"]
    assert main(["train", *words, "-o", str(tmp_path / "file" / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_command_is_installed() -> None:
    assert shutil.which("avseg", path=str(Path(sys.executable).parent)) is not None


def test_data_flag_is_short_for_data_name(tmp_path: Path) -> None:
    picture = tmp_path / "sheet.png"
    words = ["--data.size", "32", "--data.frames", "1", "--clips", "1", "-o", str(picture)]
    assert main(["data", "show", "--data", "synthetic", *words]) == 0
    assert picture.stat().st_size > 0
    assert main(["data", "show", "--data=sinthetic", *words]) == 2


def test_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["--version"]) == 0
    assert main(["nonsense"]) == 2
    sys.stdout.close()
    sys.stderr.close()


OPENS_FILES = """
import os, sys
from avseg import cli
from avseg.commands import lists

def say(words):
    files = [open(words[0] + str(k), "w") for k in range(3)]
    for number in (1, 2):
        os.write(number, b"said by a library")

cli.VERBS["say"] = say
sys.exit(cli.main(["say", sys.argv[1]]))
"""


def test_closed_descriptors_are_not_given_to_files(tmp_path: Path) -> None:
    command = ["bash", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "bash", sys.executable, "-c", OPENS_FILES, str(tmp_path / "a")]
    assert subprocess.run(command).returncode == 0
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b""] * 3


def test_ascii_output_escapes_other_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))
    monkeypatch.setitem(cli.VERBS, "say", lambda _: print("größe \udcff"))
    assert main(["say"]) == 0
    assert content.getvalue().splitlines()[0] == rb"gr\xf6\xdfe \udcff"
