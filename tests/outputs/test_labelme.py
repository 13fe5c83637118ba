import json

import numpy as np

from .conftest import DOG


def test_shapes_of_every_frame(make_clip, tmp_path):
    folder = make_clip().save(tmp_path / "out", ["labelme", "frames"])
    files = sorted((folder / "labelme").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.json" for k in range(5)]
    data = [json.loads(file.read_text()) for file in files]
    assert [[shape["label"] for shape in one["shapes"]] for one in data] == [
        [],
        ["dog"],
        ["dog"],
        ["dog", "siren"],
        ["siren"],
    ]
    for file, one in zip(files, data, strict=True):
        assert (file.parent / one["imagePath"]).resolve().is_file()
        assert (one["imageHeight"], one["imageWidth"]) == (100, 150)
    (shape,) = data[1]["shapes"]
    assert (shape["shape_type"], shape["group_id"]) == ("polygon", 1)
    x, y = np.array(shape["points"]).T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert abs(area - DOG.sum()) < 50
