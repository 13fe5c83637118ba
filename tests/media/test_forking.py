import subprocess
import sys

SCRIPT = """
import gc, os, sys
from pathlib import Path
from avseg.media.video import pictures

class Cycle:
    pass

gc.disable()
cycle = Cycle()
cycle.itself, cycle.frames = cycle, pictures(Path(sys.argv[1]))
cycle.picture = next(cycle.frames)
cycle.picture.rgb()  # starts the threads of the scaler
del cycle
child = os.fork()
if child == 0:
    gc.collect()
    print("collected", gc.get_freeze_count() > 0, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", gc.get_freeze_count())
"""


def test_forked_process_does_not_wait_for_threads_of_ffmpeg(make_video):
    video = make_video("a.mp4", size=(96, 128))
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(video)], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == ["collected True", "parent 0"]
