"""A run that is only slow is left alone: eight ranks beside four programs that take all the processor they get, with saves and
evaluations; on two nodes where they can be made.

usage: false_alarm_judge.py BUILD [--seconds=60]
"""

import argparse
import contextlib
import re
import subprocess
import tempfile
import time
from pathlib import Path

import restart_judge
import tiny_job
from two_nodes import TwoNodes

RANKS, HOGS = 8, 4
ALARM = re.compile(r"no progress for|restart \d|not heard of|^echelon: (?!\d+ ranks in|stopp)", re.MULTILINE)


@contextlib.contextmanager
def hogs():
    running = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(HOGS)]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()


def run_for(seconds: float, process: subprocess.Popen) -> str:
    """What the launcher said until it was asked to stop."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
    text = process.communicate(timeout=300)[1]
    assert process.returncode == 75, f"{process.returncode}: {text}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, hogs(), contextlib.ExitStack() as stack:
        run, recipe = Path(folder) / "run", tiny_job.write_recipe(Path(folder))
        words = tiny_job.command(options.build, recipe, run, RANKS, "steps=1000000", "batch.global=16")
        started = time.monotonic()
        if TwoNodes.possible():
            where = "one node"
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        else:
            where = "two nodes"
            nodes = stack.enter_context(TwoNodes())
            process = nodes.popen(1, [*words, f"--hosts={nodes.hosts(RANKS // 2)}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        text = run_for(options.seconds, process)
        assert not ALARM.search(text), text
        steps = restart_judge.last_step(run)
        assert steps > 0, text
        print(f"{RANKS} ranks on {where} beside {HOGS} hogs: {steps} steps in {time.monotonic() - started:.0f} s, no alarm")


if __name__ == "__main__":
    main()
