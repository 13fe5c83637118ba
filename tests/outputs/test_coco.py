import json
import shutil

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


@pytest.mark.parametrize(("name", "least"), [("coco.json", 1.0), ("coco_polygons.json", 0.95)])
def test_importer_of_cvat_reads_the_masks(name, least, make_clip, tmp_path):
    """CVAT imports COCO 1.0 with Datumaro, which expects the folders of COCO."""
    datumaro = pytest.importorskip("datumaro")
    result = make_clip()
    folder = saved(result, tmp_path / "out")
    (tmp_path / "annotations").mkdir()
    shutil.copy(folder / name, tmp_path / "annotations/instances_default.json")
    shutil.copytree(folder / "frames", tmp_path / "images/default")
    data = datumaro.Dataset.import_from(str(tmp_path), "coco_instances")
    names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
    assert sorted(names) == sorted(NAMES[1:])
    assert sorted(item.id for item in data) == [f"{k:06d}" for k in range(5)]
    for item in data:
        labels = np.zeros(result.size, int)
        for annotation in (a for a in item.annotations if a.type != datumaro.AnnotationType.bbox):
            labels[_pixels(annotation, result.size)] = NAMES.index(names[annotation.label])
        truth = result.labels[int(item.id)]
        assert (labels == truth).mean() >= least
        assert set(np.unique(labels)) == set(np.unique(truth))


def _pixels(annotation, size):
    """Return the pixels of a mask or of a polygon of Datumaro."""
    if hasattr(annotation, "image"):
        return np.asarray(annotation.image) > 0
    mask = pytest.importorskip("pycocotools.mask")
    return mask.decode(mask.merge(mask.frPyObjects([annotation.points], *size))) > 0


def test_importer_of_label_studio_reads_the_polygons(make_clip, tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter.imports.coco")
    mask_api = pytest.importorskip("pycocotools.mask")
    result = make_clip()
    folder = saved(result, tmp_path / "out")
    tasks = tmp_path / "tasks.json"
    converter.convert_coco_to_ls(str(folder / "coco_polygons.json"), str(tasks), image_root_url="/data/frames/")
    found = json.loads(tasks.read_text())
    assert [task["data"]["image"] for task in found] == [f"/data/frames/{k:06d}.png" for k in range(5)]
    height, width = result.size
    for index, task in enumerate(found):
        labels = np.zeros(result.size, int)
        for item in task["annotations"][0]["result"]:
            if item["type"] == "polygonlabels":
                points = (np.array(item["value"]["points"]) / 100 * (width, height)).ravel().tolist()
                label = NAMES.index(item["value"]["polygonlabels"][0])
                labels[mask_api.decode(mask_api.merge(mask_api.frPyObjects([points], *result.size))) > 0] = label
        assert (labels == result.labels[index]).mean() > 0.95
        assert set(np.unique(labels)) == set(np.unique(result.labels[index]))
    assert "PolygonLabels" in (tmp_path / "tasks.label_config.xml").read_text()
