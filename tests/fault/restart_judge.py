"""Ranks that die are started again by the launcher alone, and the run's bits are those of an unbroken one; ranks that die every
time end the job with one clear line; a launcher that is killed leaves nothing behind.

usage: restart_judge.py BUILD
"""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import tiny_job

RANKS = 2
LIMIT_SECONDS = 90


def start(build: str, recipe: Path, run: Path, ranks: int = RANKS, *more: str) -> subprocess.Popen:
    words = [word for word in tiny_job.command(build, recipe, run, ranks, *more) if not word.startswith("--max_restarts")]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def last_step(run: Path) -> int:
    try:
        with open(run / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))  # its last lines
            steps = re.findall(rb'^{"step":\s*(\d+), ?"loss"', file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(steps[-1]) if steps else 0


def kill_behind(process: subprocess.Popen, run: Path, step: int, times: int) -> int:
    """Kills the highest rank `times` times, each time when its attempt has taken `step`; how often it did."""
    kills, killed = 0, set()
    while kills < times and process.poll() is None:
        pids = tiny_job.rank_pids(run)
        if last_step(run) >= step and len(pids) == RANKS and not killed & set(pids):
            os.kill(pids[-1], signal.SIGKILL)
            killed |= set(pids)
            kills += 1
        time.sleep(0.002)
    return kills


def finish(process: subprocess.Popen) -> list[str]:
    return process.communicate(timeout=LIMIT_SECONDS)[1].strip().splitlines()


def check_restart(build: str, recipe: Path, work: Path, whole: Path) -> None:
    run = work / "once"
    process = start(build, recipe, run)
    assert kill_behind(process, run, 8, 1) == 1, "the run was over before a rank could be killed"
    killed = time.monotonic()
    errors = finish(process)
    text = "\n".join(errors)
    assert process.returncode == 0, text
    assert re.search(r"restart 1 from step \d+ in ", text), text
    assert tiny_job.metrics(run) == tiny_job.metrics(whole), "metrics of the restarted run differ"
    assert tiny_job.weights(run) == tiny_job.weights(whole), "weights of the restarted run differ"
    print(f"killed once: went on by itself, done {time.monotonic() - killed:.1f} s later, bits equal")


def check_give_up(build: str, recipe: Path, work: Path) -> None:
    run = work / "always"
    process = start(build, recipe, run)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr.read().strip().splitlines()))
    reader.start()
    kills = kill_behind(process, run, 8, 10)
    process.wait(LIMIT_SECONDS)
    reader.join()
    assert process.returncode == 6, f"exit code {process.returncode} after {kills} kills:\n" + "\n".join(said)
    assert re.match(r"echelon: comm: rank 1 .*killed by signal 9.* times behind step \d+\)$|"
                    r"echelon: comm: rank 1 .*killed by signal 9.*attempts failed behind step \d+\)$", said[-1]), said[-1]
    assert not tiny_job.rank_pids(run), "ranks are left over"
    print(f"killed {kills} times behind step 8: {said[-1]}")


def shared_files(pids: list[int]) -> set[Path]:
    """What these processes have mapped of /dev/shm; other jobs have theirs there too."""
    text = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids)
    return {Path(name) for name in re.findall(r" (/dev/shm/\S+)$", text, re.MULTILINE)}


def check_dead_launcher(build: str, recipe: Path, work: Path, whole: Path) -> None:
    run = work / "launcher"
    process = start(build, recipe, run)
    while last_step(run) < 8 and process.poll() is None:
        time.sleep(0.002)
    pids = tiny_job.rank_pids(run)
    files = shared_files(pids)
    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    process.communicate(timeout=LIMIT_SECONDS)
    left = lambda: tiny_job.rank_pids(run) or [file for file in files if file.exists()]
    while left() and time.monotonic() - killed < 10:
        time.sleep(0.05)
    seconds = time.monotonic() - killed
    assert pids and seconds < 5, f"{left()} are left after {seconds:.1f} s"
    tiny_job.finish(build, recipe, run, RANKS)
    assert tiny_job.weights(run) == tiny_job.weights(whole), "weights of the continued run differ"
    print(f"launcher killed: ranks and their {len(files)} files in shared memory gone after {seconds:.1f} s, the same command went on")


def main(build: str, recipe: Path, work: Path) -> None:
    whole = work / "whole"
    tiny_job.finish(build, recipe, whole, RANKS)
    check_restart(build, recipe, work, whole)
    check_give_up(build, recipe, work)
    check_dead_launcher(build, recipe, work, whole)


if __name__ == "__main__":
    tiny_job.judge(main)
