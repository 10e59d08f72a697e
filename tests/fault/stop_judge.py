"""Ctrl-C in a terminal ends the step, saves, exits with 75, leaves no rank behind, and the run goes on; and a rank of a tiny
model takes its first step soon after its start.

usage: stop_judge.py BUILD
"""

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from pathlib import Path

import tiny_job

RANKS = 2
LIMIT_SECONDS = 60
FIRST_STEP_SECONDS = 3
ENDLESS = ("steps=1000000", "checkpoint.every=1000000")


class Terminal:
    """`echelon train` as a person sees it: in the foreground of a terminal of its own."""

    def __init__(self, build: str, recipe: Path, run: Path, *more: str):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\xa0\x00\0\0\0\0")  # 24 lines of 160 columns

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            tiny_job.command(build, recipe, run, RANKS, *more), stdin=slave, stdout=slave, stderr=slave,
            preexec_fn=take_terminal, env={**os.environ, "TERM": "xterm"},
        )
        os.close(slave)
        self.screen = ""

    def read(self, seconds: float) -> bool:
        """Takes what is written within `seconds`; False when nobody writes any more."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            piece = os.read(self.master, 1 << 16)
        except OSError:
            return False
        self.screen += piece.decode()
        return bool(piece)

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not re.search(pattern, self.screen):
            assert time.monotonic() < deadline and self.read(0.05), f"no {pattern} on the screen:\n{self.screen}"

    def press_control_c(self) -> None:
        os.write(self.master, b"\x03")

    def finish(self) -> int:
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.read(0.05):
            assert time.monotonic() < deadline, f"the job does not end:\n{self.screen}"
        os.close(self.master)
        return self.process.wait(LIMIT_SECONDS)

    def shown(self) -> list[str]:
        """The lines as they stand on the screen: what was drawn over is gone."""
        lines = self.screen.replace("\r\n", "\n").split("\n")
        return [line.split("\r")[-1].replace("\x1b[K", "").rstrip() for line in lines]


def stop(terminal: Terminal, run: Path) -> None:
    """Presses Ctrl-C; the job ends as it should, and what a person reads is ours: nothing of mpirun's."""
    terminal.press_control_c()
    code = terminal.finish()
    lines = [line for line in terminal.shown() if line]
    screen = "\n".join(lines)
    assert code == 75, f"exit code {code}:\n{screen}"
    assert not tiny_job.rank_pids(run), "ranks are left over"
    assert "mpirun" not in terminal.screen and "Forwarding" not in terminal.screen, screen
    assert "stopping: this step is finished and saved first" in screen, screen
    assert lines[-1].startswith("echelon: stopped: "), screen


def check_stop(build: str, recipe: Path, work: Path) -> None:
    run = work / "run"
    terminal = Terminal(build, recipe, run, *ENDLESS)
    terminal.wait_for(r"step 1\d+/")
    stop(terminal, run)
    step = tiny_job.metrics(run)[-1]["step"]
    folders = sorted(folder.name for folder in (run / "checkpoints").glob("step-*"))
    assert folders == [f"step-{step:08}"], f"the last step is {step}, and saved is {folders}"
    assert tiny_job.is_whole(build, run / "checkpoints" / "latest"), "the checkpoint is not whole"
    print(f"Ctrl-C in step {step}: saved, exit 75")

    tiny_job.finish(build, recipe, run, RANKS, f"steps={step + 3}")
    whole = work / "whole"
    tiny_job.finish(build, recipe, whole, RANKS, f"steps={step + 3}")
    assert list(tiny_job.losses(run)) == list(range(1, step + 4)), "steps are missing, or stand twice"
    assert tiny_job.losses(run) == tiny_job.losses(whole), "losses of the continued run differ"
    assert tiny_job.weights(run) == tiny_job.weights(whole), "weights of the continued run differ"
    print("the continued run equals one that was never stopped")


def seconds_since_start(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def first_step_seconds(build: str, recipe: Path, run: Path) -> float:
    terminal = Terminal(build, recipe, run, *ENDLESS)
    terminal.wait_for(r"step \d+/")
    seconds = max(seconds_since_start(pid) for pid in tiny_job.rank_pids(run))
    stop(terminal, run)
    return seconds


def check_first_step(build: str, recipe: Path, work: Path) -> None:
    # The best of a few starts: other work on the machine is not the program's fault.
    seconds = []
    for attempt in range(3):
        seconds.append(first_step_seconds(build, recipe, work / f"start{attempt}"))
        if seconds[-1] <= FIRST_STEP_SECONDS:
            break
    print(f"first step {', '.join(f'{s:.2f}' for s in seconds)} s after the ranks' start")
    assert min(seconds) <= FIRST_STEP_SECONDS


def main(build: str, recipe: Path, work: Path) -> None:
    check_stop(build, recipe, work)
    check_first_step(build, recipe, work)


if __name__ == "__main__":
    tiny_job.judge(main)
