import numpy as np


def test_arrays_are_those_of_the_result(make_clip, tmp_path):
    result = make_clip()
    folder = result.save(tmp_path / "out", ["npz"])
    with np.load(folder / "result.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["labels"], np.asarray(result.labels))
        np.testing.assert_array_equal(data["times"], result.times)
        assert data["ends"].tolist() == [0.05, 0.1, 0.4, 0.8, 0.9]
        np.testing.assert_array_equal(data["scores"], result.scores)
        assert data["class_names"].tolist() == ["background", "dog", "siren"]
        assert list(zip(*data["intervals"].T.tolist(), data["interval_names"].tolist(), strict=True)) == [
            (0.05, 0.8, "dog"),
            (0.4, 0.9, "siren"),
        ]
        assert data["probability"].shape == (5, 50, 75)
        assert data["probability"][1].max() == round(0.9 * 255)
