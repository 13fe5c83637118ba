import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

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


PREDICT_AND_TRAIN = """
import sys
import torch
import avseg
from avseg.cli import main
torch.set_num_threads(1)
result = avseg.predict(sys.argv[1] + "/videos/a.mp4", avseg.load("small"))
print(len(result.frames), len(result.masks), flush=True)
words = "train --data videos --data.size 32 --model.visual resnet18 --model.audio compact --model.train_audio true"
steps = "--model.channels 16 --train.epochs 1 --train.batch_size 2 --train.workers 2 --train.accelerator cpu"
sys.exit(main([*words.split(), *steps.split(), "--data.root", sys.argv[1], "-o", sys.argv[2]]))
"""


@pytest.mark.slow
def test_training_with_workers_after_predict_in_one_process(make_video, make_beep, tmp_path):
    root = tmp_path / "root"
    (root / "videos").mkdir(parents=True)
    for name in "abcd":
        make_video(
            f"root/videos/{name}.mp4", times=[k / 8 for k in range(17)], size=(64, 80), sound=make_beep(2.1, 1, 2)
        )
        (root / "masks" / name).mkdir(parents=True)
        Image.fromarray(np.eye(64, 80, dtype=np.uint8)).save(root / "masks" / name / "1.png")
    command = [sys.executable, "-c", PREDICT_AND_TRAIN, str(root), str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == "17 17"
    assert (tmp_path / "run/last/model.safetensors").is_file()
