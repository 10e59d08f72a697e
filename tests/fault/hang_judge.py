"""A rank that is stopped, or spins, is named within 10 s, killed and replaced, and the run's bits are those of an unbroken one;
slow phases raise no alarm; USR2 writes what every rank did last, and the run goes on.

usage: hang_judge.py BUILD
"""

import ctypes
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import restart_judge
import tiny_job

LIMIT_SECONDS = 60
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH = 16, 17


class Job:
    """A run whose words are read as they come."""

    def __init__(self, build: str, recipe: Path, run: Path, ranks: int, *more: str):
        self.follow(restart_judge.start(build, recipe, run, ranks, *more), run)

    def follow(self, process: subprocess.Popen, run: Path) -> None:
        self.process, self.run, self.said, self.times = process, run, [], []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            self.times.append(time.monotonic())

    def fail(self, what: str) -> None:
        self.process.kill()
        raise AssertionError(f"{what}:\n" + "\n".join(self.said))

    def wait_for_step(self, step: int) -> list[int]:
        deadline = time.monotonic() + LIMIT_SECONDS
        while restart_judge.last_step(self.run) < step:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.fail(f"no step {step}")
            time.sleep(0.002)
        return tiny_job.rank_pids(self.run)

    def wait_for_line(self, pattern: str) -> tuple[str, float]:
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            for line, at in zip(list(self.said), list(self.times)):
                if re.search(pattern, line):
                    return line, at
            if time.monotonic() > deadline:
                self.fail(f"no {pattern}")
            time.sleep(0.05)

    def flight_record(self) -> str:
        """What every rank is at and did last, now."""
        log = self.run / "log"
        path = log / f"flight-{len(list(log.glob('flight-*.txt'))) + 1:03}.txt"
        self.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + LIMIT_SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                self.fail(f"no {path}")
            time.sleep(0.002)
        return path.read_text()

    def finish(self) -> str:
        self.process.wait(LIMIT_SECONDS)
        self.reader.join()
        return "\n".join(self.said)


def rank_of(pid: int) -> int:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    environment = dict(word.split(b"=", 1) for word in words if b"=" in word)
    return int(environment.get(b"OMPI_COMM_WORLD_RANK") or environment[b"SLURM_PROCID"])


def stop(job: Job, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def trace(request: int, pid: int) -> None:
    assert LIBC.ptrace(request, pid, None, None) == 0, os.strerror(ctypes.get_errno())


def is_at_work(record: str, pid: int) -> bool:
    """Whether the rank is in a step and its last collective is behind it."""
    first, *_, last = re.search(rf"^rank \d+, process {pid} .*\n(  .*\n)*", record, re.MULTILINE).group().splitlines()
    return re.search(r", in (input|compute|update) of step \d+$", first) and "inside since" not in last


def hold(job: Job, pid: int) -> None:
    """From outside it looks alive and takes no step: a debugger has it, in a step's work and outside of collectives, where
    others wait for it. (Inside of one it could not be told from a rank that waits, and while saving it has ten minutes.)"""
    for _ in range(200):
        trace(PTRACE_ATTACH, pid)
        os.waitpid(pid, 0)
        if is_at_work(job.flight_record(), pid):
            return
        trace(PTRACE_DETACH, pid)
        time.sleep(0.003)
    job.fail("never outside of collectives")


def check_replaced(build: str, recipe: Path, work: Path, ranks: int, victim: int, act, words: str, seconds: float) -> None:
    whole, run = work / f"whole{ranks}", work / f"{act.__name__}{ranks}"
    if not whole.exists():
        tiny_job.finish(build, recipe, whole, ranks)
    job = Job(build, recipe, run, ranks)
    pid = next(pid for pid in job.wait_for_step(7) if rank_of(pid) == victim)
    act(job, pid)
    stopped = time.monotonic()
    at = job.wait_for_line(r"^no progress for ")[1]
    line = job.wait_for_line(r"^echelon: comm: ")[0]
    assert line.startswith(f"echelon: comm: rank {victim}: {words} in "), line
    assert at - stopped < seconds, f"named after {at - stopped:.1f} s"
    text = job.finish()
    assert job.process.returncode == 0 and "restart 1 from step " in text, text
    assert tiny_job.metrics(run) == tiny_job.metrics(whole), "metrics of the restarted run differ"
    assert tiny_job.weights(run) == tiny_job.weights(whole), "weights of the restarted run differ"
    print(f"{ranks} ranks: {line[9:]}; named after {at - stopped:.1f} s, replaced, bits equal")


def check_short_stop(build: str, recipe: Path, work: Path) -> None:
    job = Job(build, recipe, work / "short", 2)
    pids = job.wait_for_step(8)
    os.kill(pids[0], signal.SIGSTOP)
    time.sleep(3)
    os.kill(pids[0], signal.SIGCONT)
    text = job.finish()
    assert job.process.returncode == 0 and "restart" not in text, text
    print("stopped for 3 s: forgiven")


def check_slow(build: str, recipe: Path, work: Path) -> None:
    """A rank that has a third of its time is named with what that costs, and nothing is done about it."""
    job = Job(build, recipe, work / "slow", 2, "steps=1000000", "checkpoint.every=1000000", "evaluate.every=1000000")
    pid = next(pid for pid in job.wait_for_step(20) if rank_of(pid) == 1)
    since, said = time.monotonic(), []
    while not said and time.monotonic() - since < 45:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.04)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)
        said = [line for line in list(job.said) if "holds up the others" in line]
    job.process.terminate()
    text = job.finish()
    assert said and said[0].startswith("echelon: rank 1 holds up the others: they waited for it "), text
    assert job.process.returncode == 75, text
    print(f"{said[0][9:]}; named after {time.monotonic() - since:.0f} s")


def check_flight_record(build: str, recipe: Path, work: Path) -> None:
    job = Job(build, recipe, work / "record", 2)
    job.wait_for_step(4)
    record = job.flight_record()
    text = job.finish()
    assert job.process.returncode == 0 and "the last collectives of every rank: " in text, text
    assert re.search(r"^rank 1, process \d+ .*of step \d+$", record, re.MULTILINE) and 'all_reduce "losses and norm"' in record, record
    print(f"USR2: {len(record.splitlines())} lines of flight record, the run went on")


def main(build: str, recipe: Path, work: Path) -> None:
    check_flight_record(build, recipe, work)
    check_short_stop(build, recipe, work)
    check_slow(build, recipe, work)
    check_replaced(build, recipe, work, 2, 1, stop, "stopped by a signal", 10)
    check_replaced(build, recipe, work, 4, 0, stop, "stopped by a signal", 10)
    check_replaced(build, recipe, work, 2, 0, hold, "alive, not advancing", 15)   # steps of more than 2 s raise the limit


if __name__ == "__main__":
    tiny_job.judge(main)
