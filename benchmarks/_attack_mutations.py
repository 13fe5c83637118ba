"""Seeded mutations of bytes and of trees of plain values."""

import copy
import random
from collections.abc import Iterator
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 5, 2**31, 2**63, 10**30, -(10**18), 0.5, -0.5, 1e308, float("nan"), float("inf"),
    "", "a", "$x$", "\ud800", "../../etc", "a" * 5000, "\x00", "64", "nan", [], {}, [[]], [1, 2, 3], [0, 0], [32, 16],
    [1e9, 1e9], {"a": 1}, {"name": "synthetic"}, [None], ["a", "a"], [-5, 10**6],
)  # fmt: skip
"""Values of the wrong type, size or sign."""


def mutated_bytes(data: bytes, random: random.Random) -> bytes:
    """Return a copy with one to eight mutations, half of them in the first kilobyte, where headers are."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        place = random.randrange(min(len(changed), 1024) if random.random() < 0.5 else len(changed))
        kind = random.randrange(7)
        if kind == 0:
            changed[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            extreme = random.choice(
                (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00\x00\x00")
            )
            changed[place : place + 4] = extreme
        elif kind == 2:
            length = random.choice((1, 16, 256))
            changed[place : place + length] = random.randbytes(length)
        elif kind == 3:
            del changed[place : place + random.choice((1, 7, 512))]
        elif kind == 4:
            changed[place:place] = changed[place : place + random.choice((1, 64, 1024))]
        elif kind == 5 and place > 16:
            del changed[place:]
        else:
            changed[place : place + 64] = bytes(64)
        changed = changed or bytearray(b"\x00")
    return bytes(changed)


def mutated_tree(tree: Any, random: random.Random) -> Any:
    """Return a copy of a JSON tree in which one to three values are replaced, removed, renamed or nested."""
    changed = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(changed))
        if not places:
            return random.choice(HOSTILE)
        owner, key = random.choice(places)
        kind = random.randrange(8)
        if kind == 0:
            del owner[key]
        elif kind == 1 and isinstance(owner, dict):
            owner[random.choice(("", "x", "$y$", "größe", "__class__"))] = owner.pop(key)
        elif kind == 2:
            owner[key] = nested(random.choice((3, 50, 200)))
        elif kind == 3 and isinstance(owner[key], int | float):
            owner[key] = owner[key] * random.choice((-1, 0, 2, 1000, 10**9))
        else:
            owner[key] = copy.deepcopy(random.choice(HOSTILE))
    return changed


def nested(levels: int) -> Any:
    """Return nested lists."""
    tree: Any = []
    for _ in range(levels):
        tree = [tree]
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield container and key of every value in a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
