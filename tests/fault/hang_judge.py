"""A rank that is stopped, or spins, is named within 10 s, killed and replaced, and the run's bits are those of an unbroken one;
slow phases raise no alarm; USR2 writes what every rank did last, and the run goes on.

usage: hang_judge.py BUILD
"""

import ctypes
import os
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import restart_judge
import tiny_job

LIMIT_SECONDS = 60


class Job:
    """A run whose words are read as they come."""

    def __init__(self, build: str, recipe: Path, run: Path, ranks: int):
        self.run, self.ranks, self.said, self.times = run, ranks, [], []
        self.process = restart_judge.start(build, recipe, run, ranks)
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

    def finish(self) -> str:
        self.process.wait(LIMIT_SECONDS)
        self.reader.join()
        return "\n".join(self.said)


def rank_of(pid: int) -> int:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(next(word for word in words if word.startswith(b"OMPI_COMM_WORLD_RANK=")).split(b"=")[1])


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def hold(pid: int) -> None:
    """From outside it looks alive and takes no step: a debugger has it."""
    attach = 16
    assert ctypes.CDLL(None, use_errno=True).ptrace(attach, pid, None, None) == 0, os.strerror(ctypes.get_errno())


def check_replaced(build: str, recipe: Path, work: Path, ranks: int, victim: int, act, words: str, seconds: float) -> None:
    whole, run = work / f"whole{ranks}", work / f"{act.__name__}{ranks}"
    if not whole.exists():
        tiny_job.finish(build, recipe, whole, ranks)
    job = Job(build, recipe, run, ranks)
    pid = next(pid for pid in job.wait_for_step(7) if rank_of(pid) == victim)
    act(pid)
    stopped = time.monotonic()
    at = job.wait_for_line(r"^no progress for ")[1]
    line = job.wait_for_line(r"^echelon: comm: ")[0]
    # A rank that is held inside a collective cannot be told from one that waits there: then nobody is blamed.
    nobody = act is not stop and line.startswith("echelon: comm: job: every rank of this machine waits")
    assert nobody or line.startswith(f"echelon: comm: rank {victim}: {words} in "), line
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


def check_flight_record(build: str, recipe: Path, work: Path) -> None:
    job = Job(build, recipe, work / "record", 2)
    job.wait_for_step(4)
    job.process.send_signal(signal.SIGUSR2)
    job.wait_for_line("the last collectives of every rank: ")
    text = job.finish()
    record = (work / "record" / "log" / "flight-001.txt").read_text()
    assert job.process.returncode == 0, text
    assert re.search(r"^rank 1, process \d+ .*of step \d+$", record, re.MULTILINE) and 'all_reduce "losses and norm"' in record, record
    print(f"USR2: {len(record.splitlines())} lines of flight record, the run went on")


def main() -> int:
    build = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        recipe = tiny_job.write_recipe(work)
        check_flight_record(build, recipe, work)
        check_short_stop(build, recipe, work)
        check_replaced(build, recipe, work, 2, 1, stop, "stopped by a signal", 10)
        check_replaced(build, recipe, work, 4, 0, stop, "stopped by a signal", 10)
        check_replaced(build, recipe, work, 2, 0, hold, "alive, not advancing", 15)   # steps of more than 2 s raise the limit
    return 0


if __name__ == "__main__":
    sys.exit(main())
