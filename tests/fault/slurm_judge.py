"""Ranks under a real Slurm: started by hand with srun and by `echelon train --launcher=srun`, stopped, killed, refused.

usage: slurm_judge.py BUILD
Ends with 77 (not run) where Slurm or munge is not installed.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import slurm_cluster
import tiny_job

NOT_RUN = 77
RANKS = 2
LIMIT_SECONDS = 120


class Judge:
    def __init__(self, build: str, work: Path, cluster: slurm_cluster.SlurmCluster):
        self.build, self.work = build, work
        self.environment = {**cluster.environment, "OMP_NUM_THREADS": "1"}
        self.recipe = tiny_job.write_recipe(work)

    def start(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(words, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def end(self, process: subprocess.Popen) -> tuple[int, str]:
        """Exit code, and what was written to stderr without salloc's own lines."""
        errors = process.communicate(timeout=LIMIT_SECONDS)[1]
        return process.returncode, "\n".join(line for line in errors.splitlines() if not line.startswith("salloc: "))

    def rank(self, run: Path) -> list[str]:
        return [f"{self.build}/bin/echelon-rank", "train", str(self.recipe), f"--out={run}"]

    def allocated(self, run: Path, *more: str) -> list[str]:
        """`echelon train` inside an allocation of its own."""
        command = tiny_job.command(self.build, self.recipe, run, RANKS, *more)
        return ["salloc", f"--ntasks={RANKS}", *command]

    def newest_step(self, run: Path) -> int:
        return max((int(folder.name[5:]) for folder in (run / "checkpoints").glob("step-*")), default=0)

    def wait_for_steps(self, run: Path, process: subprocess.Popen) -> int:
        """Until the run has saved once more; the step that it saved."""
        before, deadline = self.newest_step(run), time.monotonic() + LIMIT_SECONDS
        while self.newest_step(run) == before:
            assert process.poll() is None and time.monotonic() < deadline, self.end(process)
            time.sleep(0.05)
        return self.newest_step(run)

    def launcher(self, run: Path) -> int:
        """The process of `echelon train`, which salloc has started."""
        return tiny_job.pids("echelon", run)[0]


def check_words(errors: str, last: str) -> None:
    """The last line is ours and begins with `last`, and nothing on the screen is Slurm's."""
    assert errors.splitlines()[-1].startswith(last), errors
    assert "srun: " not in errors and "slurmstepd" not in errors, errors


def by_hand(judge: Judge, expected: dict) -> None:
    run = judge.work / "by_hand"
    code, errors = judge.end(judge.start("srun", "--mpi=pmix", f"--ntasks={RANKS}", *judge.rank(run)))
    assert code == 0, f"srun ended with {code}:\n{errors}"
    assert tiny_job.losses(run) == expected, "losses differ from those under mpirun"
    print("srun --mpi=pmix by hand: the losses of mpirun")


def by_launcher(judge: Judge, expected: dict) -> None:
    for launcher in ("srun", "auto"):
        run = judge.work / launcher
        code, errors = judge.end(judge.start(*judge.allocated(run, f"--launcher={launcher}")))
        assert code == 0, f"--launcher={launcher} ended with {code}:\n{errors}"
        assert tiny_job.losses(run) == expected, "losses differ from those under mpirun"
        assert "srun: " not in errors and "slurmstepd" not in errors, errors
        print(f"--launcher={launcher} in an allocation: the losses of mpirun")


def without_pmix(judge: Judge) -> None:
    run = judge.work / "copies"
    code, errors = judge.end(judge.start("srun", "--mpi=none", f"--ntasks={RANKS}", *judge.rank(run)))
    assert code == 3 and "2 independent copies were started" in errors and "srun --mpi=pmix" in errors, (code, errors)
    assert not run.exists(), "independent copies have begun to write"
    print("srun --mpi=none: refused")


def stopped(judge: Judge) -> None:
    run = judge.work / "stopped"
    for signal_of_slurm in (signal.SIGUSR1, signal.SIGTERM):  # sbatch --signal=B:USR1@120, scancel
        process = judge.start(*judge.allocated(run, "--launcher=srun", "steps=1000000"))
        step = judge.wait_for_steps(run, process)
        os.kill(judge.launcher(run), signal_of_slurm)
        code, errors = judge.end(process)
        assert code == 75, f"exit code {code}:\n{errors}"
        check_words(errors, "echelon: stopped: ")
        last = tiny_job.metrics(run)[-1]["step"]
        assert last > step and judge.newest_step(run) == last, f"the last step is {last}, saved is {judge.newest_step(run)}"
        print(f"{signal_of_slurm.name} in step {last}: saved, exit 75")


def killed(judge: Judge) -> None:
    run = judge.work / "killed"
    process = judge.start(*judge.allocated(run, "--launcher=srun", "steps=1000000"))
    judge.wait_for_steps(run, process)
    os.kill(tiny_job.rank_pids(run)[1], signal.SIGKILL)
    began = time.monotonic()
    code, errors = judge.end(process)
    seconds = time.monotonic() - began
    assert code == 6 and seconds < 5, f"exit code {code} after {seconds:.1f} s:\n{errors}"
    check_words(errors, "echelon: comm: rank ")
    assert "killed by signal 9 (SIGKILL)" in errors.splitlines()[-1], errors
    assert not tiny_job.rank_pids(run), "ranks are left over"
    print(f"a killed rank: named after {seconds:.1f} s: {errors.splitlines()[-1]}")


def queue_state(judge: Judge, job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], env=judge.environment, capture_output=True, text=True).stdout


def submit(judge: Judge, run: Path, *more: str) -> str:
    """The number of the batch job."""
    command = [word for word in tiny_job.command(judge.build, judge.recipe, run, RANKS, *more) if not word.startswith("--max_restarts")]
    done = subprocess.run([*command, "--submit"], env=judge.environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def wait_for(what: str, reached) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.1)


def submitted(judge: Judge, expected: dict) -> None:
    run = judge.work / "a job's run"
    job = submit(judge, run)
    wait_for("end of the job", lambda: "JobState=COMPLETED" in queue_state(judge, job))
    assert tiny_job.losses(run) == expected, "losses differ from those under mpirun"
    print(f"--submit: job {job}, the losses of mpirun")


def put_back(judge: Judge) -> None:
    """What happens before a time limit: USR1, a checkpoint, exit code 75, and the job waits to be started again."""
    run = judge.work / "put_back"
    job = submit(judge, run, "steps=1000000")
    wait_for("checkpoint", lambda: judge.newest_step(run) > 0)
    subprocess.run(["scancel", "--signal=USR1", job], env=judge.environment, check=True)
    wait_for("requeue", lambda: re.search(r"JobState=PENDING .*Restarts=1 ", queue_state(judge, job), re.DOTALL))
    assert judge.newest_step(run) == tiny_job.metrics(run)[-1]["step"], "the last step is not saved"
    subprocess.run(["scancel", job], env=judge.environment, check=True)
    print(f"SIGUSR1 of job {job}: step {judge.newest_step(run)} saved, back in the queue")


def main() -> int:
    missing = slurm_cluster.missing_programs()
    if missing:
        print(f"not run: not installed: {', '.join(missing)} (apt-get install munge slurmctld slurmd slurm-client)")
        return NOT_RUN
    build = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with slurm_cluster.SlurmCluster(work / "cluster") as cluster:
            judge = Judge(build, work, cluster)
            whole = work / "whole"
            tiny_job.finish(build, judge.recipe, whole, RANKS, "--launcher=mpirun")
            expected = tiny_job.losses(whole)
            by_hand(judge, expected)
            by_launcher(judge, expected)
            without_pmix(judge)
            stopped(judge)
            killed(judge)
            submitted(judge, expected)
            put_back(judge)
    return 0


if __name__ == "__main__":
    sys.exit(main())
