"""Keep processes that are forked after the use of FFmpeg, such as the workers of a DataLoader, from waiting forever.

A decoder or a scaler of FFmpeg has threads, which a forked process does not have. If the garbage collector of that
process finds such an object of its parent, freeing it waits for these threads. Before each fork, all objects are
therefore moved to the generation that is never collected, and after it they are moved back in the parent.
"""

import gc
import os
from functools import cache


@cache
def protect_forks() -> None:
    """Exclude the objects of this process from garbage collection in processes that are forked from now on."""
    frozen: list[bool] = []

    def before() -> None:
        frozen.append(gc.get_freeze_count() == 0)  # otherwise the user has frozen objects, which stay frozen
        if frozen[-1]:
            gc.freeze()

    def after_in_parent() -> None:
        if frozen.pop():
            gc.unfreeze()

    os.register_at_fork(before=before, after_in_parent=after_in_parent)
