import os
import signal
import subprocess
import sys

import pytest

from avseg.signals import Terminated, default_handlers, terminating

PREDICT = """
import signal
import sys
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # a child inherits a signal that is ignored, as under nohup
from avseg import cli, files

def predict(argv):
    with files.replacing_folder(files.Path(argv[0]), ("a.txt",), overwrite=True) as folder:
        (folder / "a.txt").write_text("half")
        print("here", flush=True)
        import time
        time.sleep(60)

cli.VERBS["predict"] = predict
sys.exit(cli.main(["predict", sys.argv[1]]))
"""


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_terminated_command_cleans_up_and_prints_one_line(tmp_path, blow, code):
    command = [sys.executable, "-c", PREDICT, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    assert [p.name for p in tmp_path.iterdir()] == [".out.partial"]
    process.send_signal(blow)
    process.send_signal(blow)  # a terminal that is closed sends two
    _, error = process.communicate()
    assert (process.returncode, error) == (code, f"avseg: ended by {blow.name}\n")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def default_signals():
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_signals")
def test_signal_raises_once_and_handlers_are_restored():
    with pytest.raises(Terminated) as caught, terminating():
        os.kill(os.getpid(), signal.SIGTERM)
    assert (caught.value.code, caught.value.name) == (143, "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_ignored_signal_stays_ignored_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminating():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


@pytest.mark.usefixtures("default_signals")
def test_default_handlers_inside_a_block():
    with terminating():
        ours = signal.getsignal(signal.SIGTERM)
        with default_handlers():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is ours
