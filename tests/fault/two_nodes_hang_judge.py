"""Ranks on another machine that are stopped, or whose link or machine is gone, are named within seconds; a link that is down for
less is waited for, and one that becomes slow is named; nothing is left of a job on either machine.

usage: two_nodes_hang_judge.py BUILD
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hang_judge
import tiny_job
from two_nodes import TwoNodes

NOT_RUN = 77
RANKS = 2
STEPS = 240  # long enough for a fault in its middle
SELDOM = ("checkpoint.every=10", "evaluate.every=100")


class Job(hang_judge.Job):
    """A run on both nodes, started on the first."""

    def __init__(self, nodes: TwoNodes, build: str, recipe: Path, run: Path, restarts: int, *more: str):
        words = tiny_job.command(build, recipe, run, RANKS * 2, f"--hosts={nodes.hosts(RANKS)}", f"--max_restarts={restarts}", *SELDOM, *more)
        self.nodes = nodes
        self.follow(nodes.popen(1, words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), run)

    def on_node(self, node: int) -> list[int]:
        """Its processes, daemons of Open MPI among them."""
        namespace = self.nodes.namespace(node)
        return [int(pid) for pid in subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split()]

    def ranks_on(self, node: int) -> list[int]:
        return [pid for pid in tiny_job.rank_pids(self.run) if pid in self.on_node(node)]

    def set_link(self, state: str) -> None:
        self.nodes.inside(2, "ip", "link", "set", "eth1", state)


def report(job: Job, since: float, pattern: str, seconds: float) -> str:
    line, at = job.wait_for_line(pattern)
    assert at - since < seconds, f"after {at - since:.1f} s: {line}"
    return f"{line.removeprefix('echelon: ')} (after {at - since:.1f} s)"


def check_stopped(job: Job, whole: Path) -> None:
    pid = next(pid for pid in job.ranks_on(2) if hang_judge.rank_of(pid) == 3)
    os.kill(pid, signal.SIGSTOP)
    print(report(job, time.monotonic(), r"^echelon: comm: rank 3 on \S+n2: silent in .*: it was stopped", 10))
    text = job.finish()
    assert job.process.returncode == 0 and "restart 1 from " in text, text  # the start, where no checkpoint is durable yet
    assert tiny_job.metrics(job.run) == tiny_job.metrics(whole), "metrics of the restarted run differ"
    assert tiny_job.weights(job.run) == tiny_job.weights(whole), "weights of the restarted run differ"


def check_flap(job: Job, whole: Path) -> None:
    job.set_link("down")
    time.sleep(3.5)
    job.set_link("up")
    text = job.finish()
    assert job.process.returncode == 0 and "restart" not in text, text
    assert re.search(r"rank \d on \S+n2: not heard of for 3 s", text) and "heard of again" in text, text
    assert tiny_job.weights(job.run) == tiny_job.weights(whole)
    print("a link that was down for 3.5 s: said, and waited for")


def check_gone(job: Job, pattern: str) -> None:
    since = time.monotonic()
    print(report(job, since, pattern, 10))
    text = job.finish()
    assert job.process.returncode == 6, text
    while job.ranks_on(2) and time.monotonic() - since < 15:
        time.sleep(0.1)
    assert not job.ranks_on(2), "ranks of the machine that was cut off go on"
    print(f"no rank is left on the other machine {time.monotonic() - since:.1f} s after it was cut off")


def check_cut(job: Job) -> None:
    job.set_link("down")
    check_gone(job, r"^echelon: comm: rank \d on \S+n2: silent in .*: its machine or the link to it is down")


def check_lost(job: Job) -> None:
    for pid in job.on_node(2):
        os.kill(pid, signal.SIGKILL)
    check_gone(job, r"^echelon: comm: machine \S+n2: lost, or the link to it; its ranks 2, 3 ")


def check_slow_link(job: Job) -> None:
    time.sleep(14)  # of steps as they should be
    since = time.monotonic()
    job.nodes.limit("1mbit")
    print(report(job, since, r"^echelon: the network has become slow, .*: a step takes ", 45))
    job.process.terminate()
    text = job.finish()
    assert job.process.returncode == 75, text


def main() -> int:
    missing = TwoNodes.possible()
    if missing:
        print(f"not run: two nodes cannot be made here: {missing}")
        return NOT_RUN
    build = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="echelon-two-nodes-") as folder:
        work = Path(folder)
        recipe = tiny_job.write_recipe(work, STEPS)

        def broken(name: str, restarts: int, check, *more, options=()) -> None:
            with TwoNodes() as nodes:
                job = Job(nodes, build, recipe, work / name, restarts, *options)
                if name != "whole":
                    job.wait_for_step(20)
                check(job, *more)

        broken("whole", 0, lambda job: job.finish())
        broken("stopped", 1, check_stopped, work / "whole")
        broken("flap", 0, check_flap, work / "whole")
        broken("cut", 0, check_cut)
        broken("lost", 0, check_lost)
        broken("slow", 0, check_slow_link, options=("steps=1000000", "checkpoint.every=1000000", "evaluate.every=1000000"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
