"""`citrinet transcribe --workers`: several processes with a recogniser each."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import citrinet
from citrinet.cli import main
from citrinet.cli.sources import find_sources
from citrinet.cli.workers import Job, Workers

EXAMPLES = Path(__file__).parents[1] / "examples"
PARENT = """
import multiprocessing, sys, threading, time
from citrinet.cli.sources import find_sources
from citrinet.cli.workers import Workers
from test_workers import job

def wait_for_child():
    while not multiprocessing.active_children():
        time.sleep(0.05)
    print(multiprocessing.active_children()[0].pid, flush=True)

if __name__ == "__main__":
    threading.Thread(target=wait_for_child, daemon=True).start()
    list(Workers(job(), 1)(find_sources(sys.argv[1])))
"""


def job(model=None):
    recognizer = {"model": str(model or citrinet.default_model()), "precision": "float32", "device": "cpu"}
    return Job({**recognizer, "decoder": None}, {"batch_size": 2, "batch_seconds": None}, {})


@pytest.mark.slow
def test_processes_print_what_one_prints(tmp_path, capsys):
    for number, path in enumerate(sorted(EXAMPLES.glob("*.flac"))[:4]):
        shutil.copy(path, tmp_path / f"{number}.flac")
    (tmp_path / "1-broken.wav").write_text("no audio")
    printed = []
    for workers in ("1", "2"):
        status = main(["transcribe", "--workers", workers, "--batch-size", "2", "--json", str(tmp_path)])
        captured = capsys.readouterr()
        assert status == 1 and "1-broken.wav: " in captured.err and "of the batches was padding" in captured.err
        printed.append(captured.out)
    assert printed[0] == printed[1] and printed[0].count("\n") == 4


def test_every_process_gets_enough_to_sort_by_length():
    sizes = {
        (count, processes): Workers(job(), processes)._chunk(count)
        for count, processes in [(3, 2), (40, 2), (1000, 4), (10**6, 4), (1, 1)]
    }
    assert sizes == {(3, 2): 2, (40, 2): 16, (1000, 4): 62, (10**6, 4): 512, (1, 1): 1}


def test_a_range_of_workers_is_for_clusters(capsys):
    assert main(["transcribe", "--workers", "1-2", str(EXAMPLES / "bus.flac")]) == 1
    assert "--workers 1-2 is for --ray: give one number" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_reported(tmp_path):
    model = shutil.copytree(citrinet.default_model(), tmp_path / "model")
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises((OSError, ValueError), match="model"):
        list(Workers(job(model), 1)(find_sources(str(EXAMPLES / "bus.flac"))))
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:  # until the pool's thread has noticed
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_reported():
    others = set(multiprocessing.active_children())

    def kill():
        while not (children := set(multiprocessing.active_children()) - others):
            time.sleep(0.01)
        children.pop().kill()

    threading.Thread(target=kill).start()
    with pytest.raises(
        ChildProcessError, match="a worker ended early, perhaps for lack of memory: use fewer --workers"
    ):
        list(Workers(job(), 1)(find_sources(str(EXAMPLES / "bus.flac"))))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent(tmp_path, number):
    script, pipe = tmp_path / "parent.py", tmp_path / "pipe.wav"
    script.write_text(PARENT)
    os.mkfifo(pipe)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, script, pipe], stdout=subprocess.PIPE, env=environment)
    child = int(parent.stdout.readline())
    with pipe.open("wb"):  # once the worker reads it
        parent.send_signal(number)
        parent.wait()
        deadline = time.monotonic() + 60
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
