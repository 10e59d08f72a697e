"""One run, many faults of many kinds: final weights and metrics are those of a run without any.

usage: soak.py BUILD [--recipe=NAME|FILE] [--faults=N] [--ranks=N] [--seed=S] [--work=FOLDER]

Without a recipe a small job of its own. A fault strikes when a checkpoint has been committed since the last one, a few steps
later: what comes again without progress ends a job, as it shall (restart_judge.py).
"""

import argparse
import collections
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import hang_judge
import restart_judge
import tiny_job

EVERY = 2  # steps between checkpoints
STEPS_A_FAULT = 60  # of the small job
LIMIT_SECONDS = 120
STOPPED = 75


class Soak(hang_judge.Job):
    def __init__(self, build: str, recipe: Path, run: Path, ranks: int, seed: int, fields: list[str]):
        self.start = lambda: self.follow(restart_judge.start(build, recipe, run, ranks, *fields), run)
        self.draws, self.ranks = random.Random(seed), ranks
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)  # from a fault to the first new step
        self.start()

    def newest(self) -> int:
        steps = [int(folder.name.removeprefix("step-")) for folder in (self.run / "checkpoints").glob("step-*")]
        return max(steps, default=0)

    def wait(self, is_so, what: str) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not is_so():
            if self.process.poll() is not None:
                self.fail(f"ended with {self.process.returncode} instead of {what}")
            if time.monotonic() > deadline:
                self.fail(f"no {what}")
            time.sleep(0.005)

    def a_rank(self) -> int:
        return self.draws.choice(tiny_job.rank_pids(self.run))

    def end_and_start_again(self, number: int, code: int) -> None:
        self.process.send_signal(number)
        self.process.wait(LIMIT_SECONDS)
        if self.process.returncode != code:
            self.fail(f"ended with {self.process.returncode}, not {code}")
        deadline = time.monotonic() + 10
        while tiny_job.rank_pids(self.run) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not tiny_job.rank_pids(self.run), "ranks are left over"
        self.reader.join()
        self.start()

    def kill(self) -> None:
        os.kill(self.a_rank(), signal.SIGKILL)

    def crash(self) -> None:
        os.kill(self.a_rank(), signal.SIGSEGV)

    def stop(self) -> None:
        os.kill(self.a_rank(), signal.SIGSTOP)

    def pause(self) -> None:
        pid = self.a_rank()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self.draws.uniform(0.1, 2))
        os.kill(pid, signal.SIGCONT)

    def starter(self) -> None:
        os.kill(tiny_job.pids("mpirun", self.run)[0], signal.SIGKILL)

    def launcher(self) -> None:
        self.end_and_start_again(signal.SIGKILL, -signal.SIGKILL)

    def request(self) -> None:
        self.end_and_start_again(signal.SIGTERM, STOPPED)

    def flip(self) -> None:
        """A bit of the newest checkpoint, and then a rank dies."""
        folder = max((self.run / "checkpoints").glob("step-*"), key=lambda path: path.name)
        file = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        with open(file, "r+b") as bytes_of:
            place = self.draws.randrange(file.stat().st_size)
            bytes_of.seek(place)
            byte = bytes_of.read(1)[0]
            bytes_of.seek(place)
            bytes_of.write(bytes([byte ^ 1 << self.draws.randrange(8)]))
        self.kill()

    FAULTS = {kill: 6, crash: 3, pause: 2, stop: 1, starter: 2, launcher: 2, request: 2, flip: 2}

    def strike(self) -> None:
        reached = self.newest()
        self.wait(lambda: self.newest() > max(reached, self.behind), "checkpoint")
        self.behind = self.newest()
        time.sleep(self.draws.uniform(0, 0.1))
        self.wait(lambda: len(tiny_job.rank_pids(self.run)) == self.ranks, "ranks")
        fault = self.draws.choices(list(self.FAULTS), list(self.FAULTS.values()))[0]
        step, began = restart_judge.last_step(self.run), time.monotonic()
        fault(self)
        self.wait(lambda: restart_judge.last_step(self.run) > step, "new step")
        self.seconds[fault.__name__].append(time.monotonic() - began)

    behind = 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--recipe")
    parser.add_argument("--faults", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path)
    return parser.parse_args()


def main() -> int:
    options = parse()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        recipe = options.recipe or tiny_job.write_recipe(work, STEPS_A_FAULT * options.faults + 20)
        fields = [f"checkpoint.every={EVERY}", "checkpoint.keep=3", "evaluate.every=100"]
        whole, broken = work / "whole", work / "broken"
        tiny_job.finish(options.build, recipe, whole, options.ranks, *fields, seconds=1800)
        soak = Soak(options.build, recipe, broken, options.ranks, options.seed, fields)
        for number in range(1, options.faults + 1):
            soak.strike()
            if number % 20 == 0:
                print(f"{number} faults, step {restart_judge.last_step(broken)}", flush=True)
        soak.process.wait(1800)
        assert soak.process.returncode == 0, soak.finish()
        assert tiny_job.metrics(broken) == tiny_job.metrics(whole), "metrics differ"
        assert tiny_job.weights(broken) == tiny_job.weights(whole), "weights differ"
        for fault, seconds in sorted(soak.seconds.items()):
            middle, most = statistics.median(seconds), max(seconds)
            print(f"{fault:<9} {len(seconds):>4} times, first new step after {middle:.1f} s, at most {most:.1f} s")
        print(f"{options.faults} faults in one run: metrics and weights equal the unbroken run's bit by bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
