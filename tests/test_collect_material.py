"""``benchmarks/collect_material.py`` on folders that the tests make: parts, masks, borders, missing inputs."""

import csv
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import collect_material
from avseg.errors import DataError
from material import masks, pictures, recordings, render, stock
from material.classes import classes, read

SIDE = 40
KINDS = {"pseudo": "pseudo: by a model", "human": "human trimap"}


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def picture(folder: Path, name: str, mask: np.ndarray, label: str, kind: str) -> dict[str, str]:
    image = folder / f"{name}.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*mask.shape, 3), 128, np.uint8)).save(image)
    Image.fromarray(mask).save(image.with_suffix(".png"))
    return {
        "image": f"{name}.jpg", "mask": f"{name}.png", "class": label, "mask_kind": KINDS[kind], "values": "",
        "licence": "CC0", "source": name,
    }  # fmt: skip


def trimap() -> np.ndarray:
    mask = np.zeros((SIDE, 2 * SIDE), np.uint8)
    mask[10:30, 10:30], mask[12:28, 12:28] = 128, 255
    return mask


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """Twenty cats of ten recordings, an implausible pseudo-mask, and one dog for validation only."""
    folder = tmp_path / "collected"
    images = [picture(folder, f"free/images/cat/pet_{i}", trimap(), "cat", "human") for i in range(20)]
    empty = np.zeros((SIDE, SIDE), np.uint8)
    images.append(picture(folder, "free/images/piano/cal_1", empty, "piano", "pseudo"))
    ones = np.full((SIDE, SIDE), 1, np.uint8)
    images.append(picture(folder, "research_only/images/dog/dog_1", ones, "dog", "human"))
    write_csv(folder / "images.csv", images)
    sounds = []
    for i in range(20):
        file = f"free/sounds/cat/meow_{i}.wav"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(bytes([i]))
        url = f"https://freesound.org/s/{i // 2}/"
        row = {"file": file, "class": "cat", "licence": "CC0", "author": "A", "source": file, "url": url}
        sounds.append(row)
    write_csv(folder / "sounds.csv", sounds)
    return folder


def manifests(out: Path) -> dict[str, list[dict[str, str]]]:
    return {part: pictures.manifest(out / part / "manifest.csv") for part in stock.PARTS}


def test_stock_has_every_group_in_one_part_and_the_stated_columns(collected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    collect_material.main([str(out), "--collected", str(collected)])
    rows = manifests(out)
    parts = defaultdict(set)
    for part, those in rows.items():
        for row in those:
            assert tuple(row) == stock.COLUMNS
            assert (out / part / row["file"]).is_file()
            parts[row["group"]].add(part)
    assert all(len(found) == 1 for found in parts.values())
    count = {part: sum(row["kind"] == "sound" for row in those) for part, those in rows.items()}
    assert count == {"train": 16, "val": 2, "test": 2, "research": 0}
    assert sum(row["kind"] == "image" for row in rows["val"]) == 1
    assert [row["file"] for row in rows["research"]] == ["images/dog/dog_1.jpg", "images/dog/dog_1.png"]


def test_stock_is_the_same_when_built_again(collected: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        collect_material.main([str(tmp_path / name), "--collected", str(collected)])
    for part in stock.PARTS:
        first, second = (tmp_path / name / part / "manifest.csv" for name in ("a", "b"))
        assert first.read_text() == second.read_text()


def test_masks_have_class_numbers_and_ignored_borders(collected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    collect_material.main([str(out), "--collected", str(collected)])
    cat = pictures.values(next(out.glob("*/images/cat/*.png")))
    assert cat.dtype == np.uint8
    assert cat.shape == (SIDE, 2 * SIDE)
    assert [(v, (cat == v).sum()) for v in np.unique(cat)] == [(0, 2800), (classes().number("cat"), 256), (255, 144)]
    dog = pictures.values(out / "research" / "images" / "dog" / "dog_1.png")
    assert set(np.unique(dog)) == {classes().number("dog")}


def test_image_with_an_implausible_pseudo_mask_is_left_out(collected: Path, tmp_path: Path) -> None:
    collect_material.main([str(tmp_path / "out"), "--collected", str(collected)])
    assert not list((tmp_path / "out").rglob("cal_1.*"))


def test_classes_of_the_stock_are_numbered_from_one(collected: Path, tmp_path: Path) -> None:
    collect_material.main([str(tmp_path / "out"), "--collected", str(collected)])
    tree = yaml.safe_load((tmp_path / "out" / "classes.yaml").read_text())
    assert [row["number"] for row in tree["classes"]] == list(range(1, len(tree["classes"]) + 1))
    assert tree["classes"][0] == {"number": 1, "name": "person", "sounds": classes().table[0]["sounds"]}
    assert len(tree["classes"]) < masks.BORDER
    assert not [row for row in tree["classes"] if row.get("silent") and row["sounds"]]


def test_large_images_are_reduced_and_masks_keep_their_values(tmp_path: Path) -> None:
    image, mask = np.zeros((600, 800, 3), np.uint8), np.zeros((600, 800), np.uint8)
    mask[:, 400:] = 7
    Image.fromarray(image).save(tmp_path / "large.jpg")
    write = pictures.Picture(tmp_path / "large.jpg", lambda: (image, mask))
    assert [kind for _, kind in write(tmp_path / "small")] == ["image", "mask"]
    assert pictures.pixels(tmp_path / "small.jpg").shape == (300, 400, 3)
    small = pictures.values(tmp_path / "small.png")
    assert (small[:, :200] == 0).all()
    assert (small[:, 200:] == 7).all()


def test_coco_masks_map_to_classes_and_other_objects(tmp_path: Path) -> None:
    rows = [{"mask_value": str(v), "class": name} for v, name in ((0, "background"), (17, "cat"), (62, "chair"))]
    rows += [{"mask_value": "44", "class": "bottle"}, {"mask_value": "255", "class": "ignore (crowd)"}]
    write_csv(tmp_path / "classes.csv", rows)
    for folder in ("images", "masks", "instances"):
        (tmp_path / "redistributable" / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((1, 5, 3), np.uint8)).save(tmp_path / "redistributable/images/coco_1.jpg")
    Image.fromarray(np.array([[0, 17, 62, 44, 255]], np.uint8)).save(tmp_path / "redistributable/masks/coco_1.png")
    Image.fromarray(np.array([[0, 1, 2, 3, 255]], np.uint8)).save(tmp_path / "redistributable/instances/coco_1.png")
    names = {key: f"redistributable/{folder}/coco_1" for key, folder in (("image", "images"), ("mask", "masks"))}
    row = {"image": f"{names['image']}.jpg", "mask": f"{names['mask']}.png", "primary_class": "cat"}
    row |= {"instance_mask": "redistributable/instances/coco_1.png", "image_licence": "CC-BY-2.0", "author_page": ""}
    write_csv(tmp_path / "manifest_images.csv", [row | {"flickr_url": "f", "source_repo": "r"}])
    (item,) = pictures.coco(tmp_path)
    assert (item.label, item.research) == ("cat", False)
    item.write(tmp_path / "out")
    expected = [0, *(classes().number(name) for name in ("cat", "silent_chair", "other_object")), 255]
    assert pictures.values(tmp_path / "out.png").tolist() == [expected]
    assert pictures.values(tmp_path / "out.instances.png").tolist() == [[0, 1, 2, 3, 0]]


def test_black_corners_get_the_colour_of_the_background() -> None:
    y, x = np.mgrid[:100, :100]
    inside, marked = abs(y - 49.5) + abs(x - 49.5) < 75, abs(y - 49.5) + abs(x - 49.5) < 30
    image = np.where(inside, np.where(marked, 50, 200), 0).astype(np.uint8)[..., None].repeat(3, axis=2)
    found = masks.uncornered(image, marked | (y < 10))
    assert found is not None
    assert (found[0][~marked] == 200).all()
    assert (found[0][marked] == 50).all()
    assert not found[1][0, 0]
    assert found[1][marked].all()
    assert masks.uncornered(image, inside) is None


PEOPLE = np.array([[False, False, True, True, True]])


@pytest.mark.parametrize(("apart", "expected"), [(True, [2, 2, 1, 1, 1]), (False, [2, 2, 2, 255, 255])])
def test_people_beside_an_object(apart: bool, expected: list[int]) -> None:
    found = masks.with_person(np.array([[2, 2, 2, 0, 0]], np.uint8), PEOPLE, 1, apart=apart)
    assert found is not None
    assert found.tolist() == [expected]


def test_people_who_cover_most_of_what_they_hold_make_an_image_unusable() -> None:
    assert masks.with_person(np.array([[0, 2, 2, 2, 0]], np.uint8), PEOPLE, 1, apart=False) is None
    few = np.zeros((10, 10), np.bool_)
    few[0, 0] = True
    assert (masks.with_person(np.ones((10, 10), np.uint8) * 2, few, 1, apart=True) == 2).all()


@pytest.mark.parametrize(
    ("name", "source", "url", "group"),
    [
        ("meow", "github:a/b@c:meow.ogg", "https://freesound.org/people/x/sounds/12/", "freesound:12"),
        ("gsc_0001", "github:a/b: 4 words joined: c.wav", "", "joined:gsc"),
        ("rain_000", f"github:a/b@{'0' * 40}:rain.ogg", "", "github:a/b:rain.ogg"),
        ("ast_en_US_f_Allison_hello", "debian:asterisk-core-sounds 1", "", "asterisk:en_US_f_Allison"),
    ],
)
def test_original_recording(name: str, source: str, url: str, group: str) -> None:
    assert recordings.original_recording(name, source, url) == group


@pytest.mark.parametrize("playing", sorted(render.PLAYING))
def test_notes_are_random_by_name_and_in_range(playing: str) -> None:
    spec = {"range": [60, 72], "playing": playing}
    notes = [render.PLAYING[playing](spec, render.generator(name)) for name in ("a", "a", "b")]
    assert notes[0] == notes[1] != notes[2]
    assert all(0 <= start < min(end, render.SECONDS) and 0 < velocity < 128 for start, end, _, velocity in notes[0])
    if playing != "drums":
        assert {tone for *_, tone, _ in notes[0]} <= set(range(60, 73))


def test_flac_holds_the_samples(tmp_path: Path) -> None:
    import av

    samples = np.linspace(-0.5, 0.5, 8000, dtype=np.float32)
    render.write_flac(tmp_path / "a.flac", samples)
    with av.open(str(tmp_path / "a.flac")) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        assert container.streams.audio[0].rate == 16000
    assert np.allclose(np.concatenate(frames, axis=1)[0] / 32767, samples, atol=1e-4)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_voices_speak(tmp_path: Path) -> None:
    item = next(render.voices())
    ((path, kind),) = item.write(tmp_path / "voice")
    assert (kind, path.suffix) == ("sound", ".flac")
    assert path.stat().st_size > 10_000


def test_stamps_are_cropped_to_what_is_opaque(tmp_path: Path) -> None:
    image = np.zeros((100, 900, 4), np.uint8)
    image[20:40, 50:850] = (255, 0, 0, 255)
    Image.fromarray(image).save(tmp_path / "stamp.png")
    pictures.CutOut(tmp_path / "stamp.png")(tmp_path / "cut")
    with Image.open(tmp_path / "cut.png") as cut:
        assert (cut.size, cut.mode) == ((400, 10), "RGBA")
        assert cut.getpixel((200, 5)) == (255, 0, 0, 255)


def test_tables_name_known_classes() -> None:
    rest = classes().rest
    for name in [*read("stamps.yaml"), *rest["with_person"]["apart"], *rest["with_person"]["held"]]:
        assert classes().number(name)
    with pytest.raises(DataError, match="Did you mean 'cat'"):
        classes().number("cats")


@pytest.mark.parametrize("option", [*collect_material.INPUTS])
def test_missing_input_is_named_in_a_line(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        collect_material.main([str(tmp_path / "out"), f"--{option}", str(tmp_path / "nothing")])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--{option}" in line
    assert "nothing does not exist" in line


def test_missing_manifest_no_input_and_full_folder_are_named(
    collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (collected / "sounds.csv").unlink()
    for words in (["out", "--collected", "collected"], ["out"], ["collected", "--voices"]):
        with pytest.raises(SystemExit):
            collect_material.main([word if word.startswith("--") else str(tmp_path / word) for word in words])
    first, second, third = capsys.readouterr().err.splitlines()
    assert "sounds.csv is missing" in first
    assert "no material was given" in second
    assert "is not empty" in third
