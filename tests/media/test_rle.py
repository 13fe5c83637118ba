import json

import numpy as np
import pytest

from avseg.media import rle

DISC = np.hypot(*(np.mgrid[:120, :200] - np.array([60, 90])[:, None, None])) < 50
EDGES = np.zeros((300, 400), bool)
EDGES[10, 5] = EDGES[200:290, 300:] = EDGES[:, 399] = True
RECTANGLE = np.zeros((9, 10), bool)
RECTANGLE[2:5, 3:7] = True
CHECKERS = np.add.outer(np.arange(6), np.arange(7)) % 2 == 0

# mask, COCO's own string, area and box of it (pycocotools 2.0)
GOLDEN = [
    (np.array([[0, 1], [1, 1]], bool), b"13", 3, (0, 0, 2, 2)),
    (np.ones((3, 4), bool), b"0<", 12, (0, 0, 4, 3)),
    (np.zeros((3, 4), bool), b"<", 0, (0, 0, 0, 0)),
    (RECTANGLE, b"m03600000i0", 12, (3, 2, 4, 3)),
    (CHECKERS, b"01100010O0010O0010O0010O0010O0010O000", 21, (0, 0, 7, 6)),
    (
        DISC,
        b"[k4c0Q38H8J4L4L4L4L4M2N2M4M2N2N2N2N2N2N2N2O0O2N2N2O0O2O0O2O0O2O0O2O0O2O00000O2O00000O2O0000000000000"
        b"00000000000000000000001N1000001N1000001N101N101N101N101N101N2N2N101N2N2N2N2N2N2N2N3L3N2N3L4L4L4L4L6H8Hao6",
        7825,
        (41, 11, 99, 99),
    ),
    (EDGES, b"V_11acf2i2QcYM" + b"0" * 195 + b"hIb6", 9211, (5, 0, 395, 300)),
]


@pytest.mark.parametrize(("mask", "text", "area", "box"), GOLDEN)
def test_equals_coco(mask, text, area, box):
    coded = rle.encode(mask)
    assert coded == rle.RLE(mask.shape, text)
    assert (rle.decode(coded) == mask).all()
    assert rle.area(coded) == area
    assert rle.box(coded) == box


def test_counts_by_hand():
    mask = np.array([[1, 0, 0], [1, 1, 0]], bool)  # columns: 1 1 | 0 1 | 0 0
    assert rle.counts(rle.encode(mask)).tolist() == [0, 2, 1, 1, 2]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (37, 53), (287, 361)])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_round_trip_of_noise(size, share):
    mask = np.random.default_rng(0).random(size) < share
    coded = rle.encode(mask)
    assert (rle.decode(coded) == mask).all()
    assert rle.area(coded) == mask.sum()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if mask.any():
        expected = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
        left, top, width, height = rle.box(coded)
        assert (left, width) == (expected[0], expected[2])
        assert top <= expected[1]  # COCO: a run that wraps around a column makes the box full height
        assert top + height >= expected[1] + expected[3]


def test_long_runs_take_several_characters():
    mask = np.zeros((2160, 3840), bool)
    mask[-1, -1] = True
    assert rle.counts(rle.encode(mask)).tolist() == [2160 * 3840 - 1, 1]


def test_encode_independent_of_memory_layout():
    assert rle.encode(np.ascontiguousarray(DISC.T).T) == rle.encode(DISC)


def test_counts_are_json_text():
    coded = rle.encode(DISC)
    text = json.dumps({"size": coded.size, "counts": coded.counts.decode("ascii")})
    assert json.loads(text)["counts"].encode() == coded.counts


@pytest.mark.parametrize("broken", [b"", b"V_11a", b"12", b"9999"])
def test_broken_counts_raise(broken):
    with pytest.raises(ValueError, match="run lengths"):
        rle.counts(rle.RLE((2, 2), broken))


def test_forged_counts_whose_sum_overflows_raise():
    # 2^62, 2^62, 2^62, 2^62 + 4: the sum modulo 2^64 is 4, the number of pixels
    runs = np.array([2**62, 2**62, 2**62, 2**62 + 4], np.int64)
    with pytest.raises(ValueError, match="run lengths add up to"):
        rle.counts(rle.RLE((2, 2), rle._compress(runs)))
