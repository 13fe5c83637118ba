"""Tests of profiles: Table III of arXiv 2406.02345, printed tables and saved files."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from avseg import build
from avseg.errors import ConfigError
from avseg.interface import AVSModel
from avseg.profile import RATIOS, TOTAL, Profile, noise, profile, published


@pytest.fixture(scope="module")
def small() -> Profile:
    return profile(
        build("pcmanet", visual="resnet18", channels=32, audio="compact"), frames=2, height=64, width=64, runs=2
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "visual", "parameters", "live", "macs"),
    [
        ("pcmanet", "resnet50", 65.68e6, 43.03e6, 84.157e9),
        ("pcmanet", "pvt_v2_b5", 94.81e6, 94.48e6, 107.556e9),
        ("tpavi", "resnet50", 91.40e6, 68.16e6, 169.320e9),
        ("tpavi", "pvt_v2_b5", 101.32e6, 100.14e6, 154.137e9),
    ],
)
def test_table_3(name: str, visual: str, parameters: float, live: float, macs: float) -> None:
    model = build(name, visual=visual, audio="none")
    found = published(model, noise(model, 1, 224, 224))
    assert found.parameters == pytest.approx(parameters, rel=0.005)
    assert found.live == pytest.approx(live, rel=0.0005)
    assert 5 * found.macs == pytest.approx(macs, rel=0.005)  # all that papers count is done frame by frame


def test_parts_add_up_to_the_total(small: Profile) -> None:
    for costs in small.costs.values():
        parts = [cost for part, cost in costs.items() if part != TOTAL]
        for field in ("parameters", "macs_paper", "macs"):
            assert sum(getattr(cost, field) for cost in parts) == getattr(costs[TOTAL], field)
        assert max(cost.peak_memory for cost in parts) == costs[TOTAL].peak_memory
        assert costs[TOTAL].latency_median <= costs[TOTAL].latency_p95
    assert list(small.costs[1.0]) == ["backbone", "audio", "fusion", "decoder", "other", TOTAL]


def test_keep_ratio_reduces_macs_of_fusion_only(small: Profile) -> None:
    assert tuple(small.costs) == RATIOS
    for count in ("macs_paper", "macs"):
        falling = [getattr(costs["fusion"], count) for costs in small.costs.values()]
        assert falling == sorted(falling, reverse=True)
        assert falling[0] > falling[-1]
        assert len({getattr(costs["decoder"], count) for costs in small.costs.values()}) == 1


def test_eq6_saving_by_hand(small: Profile) -> None:
    """Stages 3, 2, 1 of a 64 × 64 image have 16, 64, 256 tokens; each dropped query saves a C × C product."""
    tokens = 2 * (16 + 64 + 256)
    saved = small.costs[1.0]["fusion"].macs_paper - small.costs[0.0]["fusion"].macs_paper
    assert saved == tokens * 32 * 32


def test_model_without_masks_has_one_ratio() -> None:
    found = profile(
        build("pcmanet", visual="pvt_v2_b0", channels=16, audio="none", qsca=False),
        frames=1,
        height=32,
        width=48,
        runs=1,
    )
    assert tuple(found.costs) == (1.0,)
    assert found.clip == {"frames": 1, "height": 32, "width": 48}
    assert found.costs[1.0]["audio"].parameters == 0


def test_published_cost_does_not_depend_on_config(small: Profile) -> None:
    settings = {"visual": "resnet18", "channels": 32, "audio": "none"}
    measured = build("pcmanet", **settings, pool_tokens=True, unheard_audio=True)
    assert published(measured, noise(measured, 2, 64, 64)).macs == small.published.macs
    assert small.published.config["pool_tokens"]
    assert not small.config["pool_tokens"]


@pytest.fixture(scope="module")
def prompted() -> Profile:
    return profile(cpm(), frames=2, height=64, width=64, runs=1)


def cpm(**settings: object) -> AVSModel:
    small = {
        "visual": "efficientnet_lite0",
        "audio": "compact",
        "channels": 32,
        "queries": 5,
        "layers": 3,
        "pixel_layers": 1,
    }
    return build("cpm", 3, **{**small, **settings})


@pytest.fixture(scope="module")
def without() -> Profile:
    return profile(cpm(acp=False, vcp=False, pcl=False), frames=2, height=64, width=64, runs=1)


@pytest.mark.parametrize("source", ["mixture", "embedding"])
def test_prompting_costs_nothing_at_inference(prompted: Profile, without: Profile, source: str) -> None:
    found = (
        prompted if source == "mixture" else profile(cpm(prompt_source=source), frames=2, height=64, width=64, runs=1)
    )
    assert list(found.costs[1.0]) == ["backbone", "audio", "fusion", "decoder", "other", TOTAL]
    for part, cost in found.costs[1.0].items():
        plain = without.costs[1.0][part]
        assert (cost.parameters, cost.macs_paper, cost.macs) == (plain.parameters, plain.macs_paper, plain.macs)
    assert without.training == 0


def test_training_parameters_are_counted_separately(prompted: Profile) -> None:
    prompt, sound, pixels = 32 * 32 + 32, 32 * 128 + 128, 32 * 128 + 128
    assert prompted.training == prompt + sound + pixels
    everything = sum(p.numel() for p in cpm().parameters())
    assert prompted.costs[1.0][TOTAL].parameters == everything - prompted.training


def test_layers_called_without_their_module_belong_to_its_part(prompted: Profile) -> None:
    assert prompted.costs[1.0]["other"].macs_paper == 0 < prompted.costs[1.0]["decoder"].macs_paper


def test_model_without_published_cost_has_no_paper_row(prompted: Profile) -> None:
    assert prompted.published is None
    console = Console(width=80, file=io.StringIO())
    console.print(prompted)
    text = " ".join(console.file.getvalue().split())
    assert "its paper" not in text.lower()
    assert "training 0.01" in text
    assert "The part training does not run at inference and is in no total." in text


def test_prints_parts_ratios_and_the_papers_row(small: Profile) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(small)
    text = console.file.getvalue()
    for word in ("backbone", "decoder", "its paper", "are used", "Total by keep ratio", "0.10"):
        assert word in text
    assert "…" not in text  # nothing is cut off in a terminal of 80 columns


def test_saved_json_has_provenance(small: Profile, tmp_path: Path) -> None:
    path = tmp_path / "new" / "profile.json"
    small.save(path, "avseg profile pcmanet --visual resnet18")
    saved = json.loads(path.read_text())
    assert {"command", "commit", "date", "hardware", "versions", "note", "config", "numbers"} == set(saved)
    assert saved["config"]["visual"] == "resnet18"
    assert saved["numbers"]["costs"]["1.0"]["backbone"]["parameters"] == small.costs[1.0]["backbone"].parameters
    assert [p.name for p in path.parent.iterdir()] == ["profile.json"]


@pytest.mark.parametrize("settings", [{"frames": 0}, {"height": 0}, {"runs": 0}])
def test_numbers_below_one_are_refused(settings: dict[str, int]) -> None:
    model = build("pcmanet", visual="pvt_v2_b0", channels=16, audio="none")
    with pytest.raises(ConfigError, match="must be 1 or more"):
        profile(model, **settings)
