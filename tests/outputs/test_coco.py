import json

import numpy as np
import pytest
from PIL import Image

from .conftest import DOG, HOLE, NAMES

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def saved(result, folder, **settings):
    return result.save(folder, {"coco": settings, "frames": {"format": settings.get("format", "png")}})


def test_pycocotools_reads_the_masks(make_clip, tmp_path):
    pycocotools = pytest.importorskip("pycocotools.coco")
    result = make_clip()
    folder = saved(result, tmp_path / "out")
    coco = pycocotools.COCO(str(folder / "coco.json"))
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {1: "dog", 2: "siren"}
    for index, image in coco.imgs.items():
        with Image.open(folder / "frames" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        labels = np.zeros(result.size, int)
        for annotation in coco.loadAnns(coco.getAnnIds(index)):
            mask = coco.annToMask(annotation) > 0
            labels[mask] = annotation["category_id"]
            assert annotation["area"] == mask.sum()
        np.testing.assert_array_equal(labels, result.labels[index])
    assert len(coco.imgs) == 5


@pytest.mark.parametrize(("tolerance", "least"), [(0.0, 0.999), (1.0, 0.95)])
def test_pycocotools_reads_the_polygons(make_clip, tmp_path, tolerance, least):
    pycocotools = pytest.importorskip("pycocotools.coco")
    result = make_clip()
    folder = saved(result, tmp_path / "out", tolerance=tolerance, format="jpg")
    coco = pycocotools.COCO(str(folder / "coco_polygons.json"))
    assert len(coco.anns) == 5
    for annotation in coco.anns.values():
        assert isinstance(annotation["segmentation"], list)
        mask = coco.annToMask(annotation) > 0
        truth = result.labels[annotation["image_id"]] == annotation["category_id"]
        assert (mask & truth).sum() / (mask | truth).sum() >= least


def test_supervision_reads_the_masks(make_clip, tmp_path):
    supervision = pytest.importorskip("supervision")
    result = make_clip()
    folder = saved(result, tmp_path / "out")
    data = supervision.DetectionDataset.from_coco(
        images_directory_path=str(folder / "frames"), annotations_path=str(folder / "coco.json"), force_masks=True
    )
    assert data.classes == list(NAMES[1:])
    found = {path.rpartition("/")[2]: annotation for path, _, annotation in data}
    assert len(found) == 5
    np.testing.assert_array_equal(found["000001.png"].mask, DOG[None])
    np.testing.assert_array_equal(found["000003.png"].mask[0], HOLE)


def test_result_and_file_are_equal(make_clip, tmp_path):
    result = make_clip()
    data = json.loads((saved(result, tmp_path / "out") / "coco.json").read_text())
    assert data == json.loads(json.dumps(result.to_coco()))
    assert [image["time"] for image in data["images"]] == result.times.tolist()
