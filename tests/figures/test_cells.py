import numpy as np

from avseg.figures.cells import fit, highlight, overlay_labels, spectrogram

FRAME = np.full((40, 60, 3), (200, 40, 40), np.uint8)
MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:4] = True


def test_highlight_keeps_colour_only_in_mask():
    out = np.asarray(highlight(FRAME, MASK, (60, 40)))
    assert out.shape == FRAME.shape
    assert (out[20, 30] == FRAME[20, 30]).all()
    assert len(set(out[2, 2].tolist())) == 1
    assert (out[10, 25] == 255).all()


def test_overlay_labels_colours_labels_on_grey():
    labels = MASK.astype(np.int64) * 3
    out = np.asarray(overlay_labels(FRAME, labels, (60, 40), lambda label: (0, 80 * label, 0))).astype(int)
    assert out[20, 30, 1] > out[20, 30, 0] + 100
    assert len(set(out[2, 2].tolist())) == 1


def test_fit_resizes_and_spectrogram_is_dark_for_silence():
    assert fit(FRAME, (30, 20)).size == (30, 20)
    patch = np.full((96, 64), np.log(0.01), np.float32)
    patch[48:] = 3.0
    out = np.asarray(spectrogram(patch, (64, 32))).sum(-1).astype(int)
    assert out[:, -5:].min() > out[:, :5].max() + 100
