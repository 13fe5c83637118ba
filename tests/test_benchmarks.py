"""The scripts of ``benchmarks/``: what they count, against scenes made by hand, and all of them on small models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ambiguity
import audio_response
import cpm_classifiers
import matching_stability
from avseg.cli import main
from avseg.data import Sample
from avseg.errors import ConfigError
from avseg.interface import IGNORE, Clip, Target
from avseg.synthesis.scene import Scene

T, SIDE = 4, 4


def scene(sounds: list[list[int]], seen: tuple[bool, ...] = (True, True)) -> Scene:
    """Thing 1 is the left column of every frame, thing 2 the right one."""
    instances = np.zeros((T, SIDE, SIDE), np.uint8)
    instances[:, :, 0], instances[:, :, -1] = 1, 2
    return Scene(
        frames=np.zeros((T, SIDE, SIDE, 3), np.uint8),
        waveform=np.zeros(16000 * T, np.float32),
        instances=instances,
        labels=tuple(range(1, len(seen) + 1)),
        seen=seen,
        sounds=np.array(sounds, dtype=bool),
    )


def sample(of: Scene) -> Sample:
    sounding = [np.flatnonzero(of.sounds[:, t]) + 1 for t in range(T)]
    masks = torch.tensor(np.stack([np.isin(of.instances[t], sounding[t]) for t in range(T)]).astype(np.int64))[None]
    clip = Clip(torch.zeros(1, T, 3, SIDE, SIDE), torch.zeros(1, T, 1, 96, 64))
    return Sample(clip, Target(masks, torch.ones(1, T, dtype=torch.bool)), ["scene"])


def given(marked: Tensor, uncertainty: Tensor | None = None, probability: float = 0.9) -> ambiguity.Answer:
    probabilities = torch.where(marked, probability, 1 - probability).double()[:, None]
    return ambiguity.Answer(probabilities, marked, uncertainty, [0.5] * T)


def nothing() -> Tensor:
    return torch.zeros(T, SIDE, SIDE, dtype=torch.bool)


def test_around_a_change_are_the_frames_on_both_sides_of_what_is_seen() -> None:
    assert ambiguity.around(scene([[1, 1, 0, 0], [0, 0, 0, 0]])).tolist() == [False, True, True, False]
    assert ambiguity.around(scene([[1, 1, 1, 1], [0, 0, 0, 1]])).tolist() == [False, False, True, True]
    assert not ambiguity.around(scene([[1, 1, 1, 1], [0, 0, 0, 0]])).any()
    # What is heard from outside the picture changes nothing that could be marked.
    assert not ambiguity.around(scene([[1, 1, 1, 1], [0, 1, 0, 1]], (True, False))).any()


def test_of_two_that_look_alike_the_one_that_sounds_is_right() -> None:
    """Frames: right and whole, wrong by half, both alike, neither; and one in which the first is silent."""
    marked = nothing()
    marked[0, :, 0] = True
    marked[1, :2, -1] = True
    marked[2, :, 0] = marked[2, :, -1] = True
    counted, twins = ambiguity.Spatial(), scene([[1, 1, 1, 1], [0, 0, 0, 0]])
    counted.add(sample(twins), twins, given(marked))
    quiet = scene([[0, 0, 0, 0], [0, 0, 0, 0]])
    counted.add(sample(quiet), quiet, given(marked))
    assert counted.numbers() == {
        "frames": 4,
        "chosen": pytest.approx(1 / 3),
        "a0": pytest.approx(0.5),
        "a1": pytest.approx(1.5 / 4),
        "missed": 0.25,
        "j": 0.5,
    }


def test_of_no_frames_nothing_is_said() -> None:
    assert set(ambiguity.Spatial().numbers().values()) == {0, None}
    assert set(ambiguity.Group(1).numbers().values()) == {0, None}


def test_what_sounded_before_and_what_never_does_are_counted_apart() -> None:
    """The first sounds in frames 0 and 1, the second never; frame 2 follows the change, frame 3 does not."""
    switching = scene([[1, 1, 0, 0], [0, 0, 0, 0]])
    marked = nothing()
    marked[2, :, 0] = True
    marked[2, 0, -1] = True
    counted = ambiguity.Temporal(1)
    counted.add(sample(switching), switching, given(marked, torch.full((T, SIDE, SIDE), 0.25).double()))
    near, far = (counted.groups[name].numbers() for name in (ambiguity.AROUND, ambiguity.OTHERS))
    assert (near["frames"], far["frames"]) == (2, 2)
    assert near["lingering"] == 1.0
    assert near["silent"] == pytest.approx(1 / 8)
    assert far["lingering"] is None
    assert far["silent"] == 0.0
    assert near["error"] == 0.5
    assert near["uncertainty"] == pytest.approx(0.25)
    # Each pixel says 0.9 or 0.1; of frames 1 and 2, four that sound are not marked, five are marked and silent.
    share_marked, share_left = 0 / 5, 4 / 27
    ece = (5 * abs(share_marked - 0.9) + 27 * abs(share_left - 0.1)) / 32
    assert near["ece"] == pytest.approx(ece)
    assert near["auroc/doubt"] == pytest.approx(0.5)


NAME = "bench_ama_ue_cpm_synthetic"
DATA = "--data.categories true --data.size 32 --data.frames 2 --data.train 4 --data.val 2 --data.test 2"
COMMON = "--model.visual resnet18 --model.audio compact --model.channels 32 --model.heads 2"
CPM = "--model.queries 4 --model.layers 1 --model.pixel_layers 1 --model.feedforward 16 --model.points 16"
TRAIN = "--seeds 1 --budget 4 --train.batch_size 2 --train.workers 0 --train.keep_every 2 --results results"
WORDS = f"bench --models ama_ue,cpm --data synthetic {DATA} {COMMON} {CPM} {TRAIN}".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(WORDS) == 0
    return folder / "runs" / NAME


def test_ambiguity_writes_tables_numbers_and_a_picture(runs: Path, tmp_path: Path) -> None:
    ambiguity.main([str(runs), str(tmp_path / "new/bench_x"), "ama_ue", "cpm", "--clips", "2"])
    result = json.loads((tmp_path / "new/bench_x.json").read_text(encoding="utf-8"))
    assert set(result["numbers"]) == {"ama_ue", "cpm"}
    assert result["config"]["data"]["test"] == 2
    ours, theirs = (result["numbers"][label]["temporal"] for label in ("ama_ue", "cpm"))
    assert 0 < ours[ambiguity.AROUND]["uncertainty"]["mean"] < 1
    assert theirs[ambiguity.AROUND]["uncertainty"] is None
    lines = (tmp_path / "new/bench_x.md").read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ama_ue")] == ["| ama_ue"] * 3
    for name in ("reliability", "uncertainty"):
        with Image.open(tmp_path / f"new/bench_x_{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_matching_and_classifiers_of_runs(runs: Path, tmp_path: Path) -> None:
    matching_stability.main([str(runs), str(tmp_path / "matching"), "cpm"])
    curves = json.loads((tmp_path / "matching.json").read_text(encoding="utf-8"))["numbers"]["cpm"]
    assert [list(curve) for curve in curves] == [["4"]]
    assert 0 <= curves[0]["4"] <= 1
    cpm_classifiers.main([str(runs), str(tmp_path / "classifiers"), "cpm"])
    scores = json.loads((tmp_path / "classifiers.json").read_text(encoding="utf-8"))["numbers"]["cpm"]
    assert set(scores) == {*cpm_classifiers.CLASSIFIERS}
    assert (tmp_path / "classifiers.md").read_text(encoding="utf-8").splitlines()[-1].startswith("| cpm | ")


def test_responses_of_runs_with_either_sound(runs: Path, tmp_path: Path) -> None:
    audio_response.main([str(runs), str(tmp_path / "responses"), "ama_ue", "--clips", "2"])
    numbers = json.loads((tmp_path / "responses.json").read_text(encoding="utf-8"))["numbers"]["ama_ue"]
    assert set(numbers) == {"1", "2", "3", "4"}
    areas = [numbers[stage][whose]["mean"] for stage in "123" for whose in audio_response.SOUNDS]
    assert all(0 <= area <= 1 for area in areas)
    assert len(set(areas)) > 3
    assert [*numbers["4"].values()] == [None, None], "a single token, at which nothing sounds"


def test_a_response_is_right_where_it_sounds() -> None:
    """Labels of tokens are those of the nearest pixels; frames and pixels without a label do not count."""
    heard = sample(scene([[1, 1, 1, 1], [0, 0, 0, 0]]))
    heard.target.labelled[0, 3] = False
    heard.target.masks[0, 0, 0, 0] = IGNORE
    response = torch.full((T, SIDE, SIDE), 0.2)
    response[:, :, 0] = 0.8
    response[1, :, 0] = 0.1
    ranking = audio_response.Ranking()
    audio_response.count(ranking, response, heard)
    assert (int(ranking.wrong.sum()), int(ranking.right.sum())) == (11, 36)
    assert ranking.auroc == pytest.approx(7 / 11)


@pytest.mark.parametrize("script", [ambiguity, matching_stability, cpm_classifiers, audio_response])
def test_a_label_that_is_not_there(
    script: object, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        script.main([str(runs), str(tmp_path / "out"), "pcmanet"])  # type: ignore[attr-defined]
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"error: {runs} has no runs of ['pcmanet']: give labels out of ['ama_ue', 'cpm']")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", [matching_stability, cpm_classifiers])
def test_a_model_that_matches_nothing(script: object, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        script.main([str(runs), str(tmp_path / "out"), "ama_ue"])  # type: ignore[attr-defined]
    assert isinstance(end.value.__cause__, ConfigError)
    assert "holds no CPM" in str(end.value.__cause__)
