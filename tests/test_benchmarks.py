"""Scripts of ``benchmarks/``: counts on scenes made by hand, and complete runs on small models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ambiguity
import audio_response
import avseg
import cpm_classifiers
import matching_stability
from avseg.cli import main
from avseg.data import Sample
from avseg.errors import ConfigError
from avseg.interface import IGNORE, Clip, Target
from avseg.model_folder import save
from avseg.models import model_class
from avseg.synthesis.scene import Scene
from avseg.testing import small_settings

T, SIDE = 4, 4


def scene(sounds: list[list[int]], seen: tuple[bool, ...] = (True, True)) -> Scene:
    """Return a scene: object 1 is the left column of every frame, object 2 the right one."""
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


def predicted(marked: Tensor, uncertainty: Tensor | None = None, probability: float = 0.9) -> ambiguity.ClipPrediction:
    probabilities = torch.where(marked, probability, 1 - probability).double()[:, None]
    return ambiguity.ClipPrediction(probabilities, marked, uncertainty, [0.5] * T)


def nothing() -> Tensor:
    return torch.zeros(T, SIDE, SIDE, dtype=torch.bool)


def test_near_change_has_frames_on_both_sides_of_visible_changes() -> None:
    assert ambiguity.near_change(scene([[1, 1, 0, 0], [0, 0, 0, 0]])).tolist() == [False, True, True, False]
    assert ambiguity.near_change(scene([[1, 1, 1, 1], [0, 0, 0, 1]])).tolist() == [False, False, True, True]
    assert not ambiguity.near_change(scene([[1, 1, 1, 1], [0, 0, 0, 0]])).any()
    # Off-screen sounds do not change the masks.
    assert not ambiguity.near_change(scene([[1, 1, 1, 1], [0, 1, 0, 1]], (True, False))).any()


def test_spatial_counts_preference_for_sounding_object() -> None:
    """Marked: the sounding object, half of the silent one, both, neither; and a clip with a silent first object."""
    marked = nothing()
    marked[0, :, 0] = True
    marked[1, :2, -1] = True
    marked[2, :, 0] = marked[2, :, -1] = True
    counted, twins = ambiguity.Spatial(), scene([[1, 1, 1, 1], [0, 0, 0, 0]])
    counted.add(sample(twins), twins, predicted(marked))
    quiet = scene([[0, 0, 0, 0], [0, 0, 0, 0]])
    counted.add(sample(quiet), quiet, predicted(marked))
    assert counted.numbers() == {
        "frames": 4,
        "chosen": pytest.approx(1 / 3),
        "a0": pytest.approx(0.5),
        "a1": pytest.approx(1.5 / 4),
        "missed": 0.25,
        "j": 0.5,
    }


def test_numbers_without_frames_are_none() -> None:
    assert set(ambiguity.Spatial().numbers().values()) == {0, None}
    assert set(ambiguity.Group(1).numbers().values()) == {0, None}


def test_temporal_counts_lingering_and_silent_separately() -> None:
    """Object 1 sounds in frames 0 and 1, object 2 never; frames 1 and 2 are near the change."""
    switching = scene([[1, 1, 0, 0], [0, 0, 0, 0]])
    marked = nothing()
    marked[2, :, 0] = True
    marked[2, 0, -1] = True
    counted = ambiguity.Temporal(1)
    counted.add(sample(switching), switching, predicted(marked, torch.full((T, SIDE, SIDE), 0.25).double()))
    near, far = (counted.groups[name].numbers() for name in (ambiguity.AROUND, ambiguity.OTHERS))
    assert (near["frames"], far["frames"]) == (2, 2)
    assert near["lingering"] == 1.0
    assert near["silent"] == pytest.approx(1 / 8)
    assert far["lingering"] is None
    assert far["silent"] == 0.0
    assert near["error"] == 0.5
    assert near["uncertainty"] == pytest.approx(0.25)
    # Probabilities are 0.9 or 0.1; in frames 1 and 2, four sounding pixels are unmarked and five silent ones marked.
    share_marked, share_left = 0 / 5, 4 / 27
    ece = (5 * abs(share_marked - 0.9) + 27 * abs(share_left - 0.1)) / 32
    assert near["ece"] == pytest.approx(ece)
    assert near["auroc/doubt"] == pytest.approx(0.5)


NAME = "bench_ama_ue_cpm_synthetic"
DATA = "--data.categories true --data.size 32 --data.frames 2 --data.train 4 --data.val 2 --data.test 2"
COMMON = "--model.visual pvt_v2_b0 --model.audio compact --model.channels 32 --model.heads 2"
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


@pytest.mark.slow
def test_ambiguity_writes_tables_numbers_and_plots(runs: Path, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_matching_stability_and_classifiers_of_runs(runs: Path, tmp_path: Path) -> None:
    matching_stability.main([str(runs), str(tmp_path / "matching"), "cpm"])
    curves = json.loads((tmp_path / "matching.json").read_text(encoding="utf-8"))["numbers"]["cpm"]
    assert [list(curve) for curve in curves] == [["4"]]
    assert 0 <= curves[0]["4"] <= 1
    cpm_classifiers.main([str(runs), str(tmp_path / "classifiers"), "cpm"])
    scores = json.loads((tmp_path / "classifiers.json").read_text(encoding="utf-8"))["numbers"]["cpm"]
    assert set(scores) == {*cpm_classifiers.CLASSIFIERS}
    assert (tmp_path / "classifiers.md").read_text(encoding="utf-8").splitlines()[-1].startswith("| cpm | ")


@pytest.mark.slow
def test_audio_response_with_own_and_other_audio(runs: Path, tmp_path: Path) -> None:
    audio_response.main([str(runs), str(tmp_path / "responses"), "ama_ue", "--clips", "2"])
    numbers = json.loads((tmp_path / "responses.json").read_text(encoding="utf-8"))["numbers"]["ama_ue"]
    assert set(numbers) == {"1", "2", "3", "4"}
    areas = [numbers[stage][source]["mean"] for stage in "123" for source in audio_response.SOUNDS]
    assert all(0 <= area <= 1 for area in areas)
    assert len(set(areas)) > 3
    assert [*numbers["4"].values()] == [None, None], "a single token, which is silent"


def test_audio_response_ranking_by_hand() -> None:
    """Tokens have the labels of the nearest pixels; frames and pixels without a label are not counted."""
    given = sample(scene([[1, 1, 1, 1], [0, 0, 0, 0]]))
    given.target.labelled[0, 3] = False
    given.target.masks[0, 0, 0, 0] = IGNORE
    response = torch.full((T, SIDE, SIDE), 0.2)
    response[:, :, 0] = 0.8
    response[1, :, 0] = 0.1
    ranking = audio_response.BinnedAUROC()
    audio_response.count(ranking, response, given)
    assert (int(ranking.positives.sum()), int(ranking.negatives.sum())) == (11, 36)
    assert ranking.auroc == pytest.approx(7 / 11)


@pytest.mark.parametrize("script", [ambiguity, matching_stability, cpm_classifiers, audio_response])
def test_unknown_label_prints_one_line(script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    for label in ("ama_ue", "cpm"):
        (runs / label / "seed0").mkdir(parents=True)
    with pytest.raises(SystemExit) as end:
        script.main([str(runs), str(tmp_path / "out"), "pcmanet"])  # type: ignore[attr-defined]
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"error: {runs} has no runs of ['pcmanet']: choose labels from ['ama_ue', 'cpm']")
    assert list(tmp_path.iterdir()) == [runs]


@pytest.mark.slow
@pytest.mark.parametrize("script", [matching_stability, cpm_classifiers])
def test_model_without_matching_raises(script: object, tmp_path: Path) -> None:
    model = avseg.build("ama_ue", **small_settings(model_class("ama_ue")))
    for name in ("step2", "step4", "last"):
        save(model, tmp_path / "runs/ama_ue/seed0" / name)
    with pytest.raises(SystemExit) as end:
        script.main([str(tmp_path / "runs"), str(tmp_path / "out"), "ama_ue"])  # type: ignore[attr-defined]
    assert isinstance(end.value.__cause__, ConfigError)
    assert "holds no CPM" in str(end.value.__cause__)
