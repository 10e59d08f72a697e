"""SIGKILL of a random rank, at random moments and while a checkpoint is being written: what goes on equals what was never broken,
bit by bit, whether checkpoints are written in the background or not.

usage: kill_judge.py BUILD [--kills=N] [--seed=S]
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import tiny_job

RANKS = 2


def wait_for_a_save(process, run, draws) -> None:
    """Until one of the next saves has its staging folder, and up to a few milliseconds of it."""
    for _ in range(draws.randrange(1, 5)):
        before = set((run / "inflight").glob("*"))
        while process.poll() is None and not set((run / "inflight").glob("*")) - before:
            time.sleep(0.0002)
    time.sleep(draws.uniform(0, 0.008))


def kill_one(build, recipe, run, delay, draws, *more) -> str:
    """Starts or continues the run and kills a rank after `delay` seconds, or in a save if there is none; what the launcher said,
    "" if it was done first."""
    process = tiny_job.start(build, recipe, run, RANKS, *more)
    deadline = time.monotonic() + 30
    while len(pids := tiny_job.rank_pids(run)) < RANKS and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if delay is None:
        wait_for_a_save(process, run, draws)
    else:
        time.sleep(delay)
    try:
        if process.poll() is None and pids:
            os.kill(draws.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        pass
    killed = time.monotonic()
    errors = process.communicate(timeout=60)[1].strip().splitlines()
    if process.returncode == 0:
        return ""
    assert time.monotonic() - killed < 5, f"the job outlived its dead rank by {time.monotonic() - killed:.1f} s"
    assert process.returncode == 6, f"exit code {process.returncode}: {errors[-1]}"
    assert "signal 9" in errors[-1], errors[-1]
    assert not tiny_job.rank_pids(run), "ranks are left over"
    return errors[-1]


def check_checkpoints(build, run) -> None:
    for folder in sorted((run / "checkpoints").glob("step-*")):
        assert tiny_job.is_whole(build, folder), f"{folder.name} is committed and not whole"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    draws = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        recipe = tiny_job.write_recipe(work)
        whole = work / "whole"
        started = time.monotonic()
        tiny_job.finish(options.build, recipe, whole, RANKS)
        span = time.monotonic() - started
        expected, kills, runs, in_saves = tiny_job.metrics(whole), 0, 0, 0
        while kills < options.kills:
            broken = work / f"broken{runs}"
            more = [f"checkpoint.background={'false' if runs % 3 == 2 else 'true'}"]
            runs += 1
            for attempt in range(3):
                delay = draws.uniform(0, span) if attempt == 0 else None
                said = kill_one(options.build, recipe, broken, delay, draws, *more)
                kills += said != ""
                in_saves += said != "" and any((broken / "inflight").glob("*"))
                if (broken / "checkpoints").exists():
                    check_checkpoints(options.build, broken)
            tiny_job.finish(options.build, recipe, broken, RANKS, *more)
            assert tiny_job.metrics(broken) == expected, "metrics of the continued run differ"
            assert tiny_job.weights(broken) == tiny_job.weights(whole), "weights of the continued run differ"
            shutil.rmtree(broken)
        assert in_saves > 0, "no kill struck while a checkpoint was being written"
        print(f"{kills} kills, {in_saves} of them in a save, in {runs} runs: metrics and weights equal the unbroken run's bit by bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
