"""Ranks under a real Slurm, of one node and of two: started by hand with srun and by `echelon train --launcher=srun`, stopped, killed,
refused; a job that was put back into the queue starts again and goes on.

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

import hang_judge
import slurm_cluster
import tiny_job
from two_nodes import TwoNodes

NOT_RUN = 77
RANKS = 2
LIMIT_SECONDS = 120


class Judge:
    def __init__(self, build: str, work: Path, cluster: slurm_cluster.SlurmCluster):
        self.build, self.work, self.cluster = build, work, cluster
        self.environment = {**cluster.environment, "OMP_NUM_THREADS": "1"}
        self.recipe = tiny_job.write_recipe(work)

    def losses_of_mpirun(self) -> dict[int, float]:
        tiny_job.finish(self.build, self.recipe, self.work / "whole", RANKS, "--launcher=mpirun")
        return tiny_job.losses(self.work / "whole")

    def start(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(self.cluster.command(*words), env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
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
        nodes = len(self.cluster.machines)
        return ["salloc", f"--nodes={nodes}", f"--ntasks={RANKS}", f"--ntasks-per-node={RANKS // nodes}", *command]

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


def ranks_by_machine(run: Path) -> set[str]:
    """Names of the machines that the ranks' logs speak of."""
    return {name for log in (run / "log").glob("rank-*.log") for name in re.findall(r"^Running on machine: (\S+)$", log.read_text(), re.MULTILINE)}


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
        assert len(ranks_by_machine(run)) == len(judge.cluster.machines), ranks_by_machine(run)
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
    return subprocess.run(judge.cluster.command("scontrol", "show", "job", job), env=judge.environment, capture_output=True, text=True).stdout


def submit(judge: Judge, run: Path, *more: str) -> str:
    """The number of the batch job."""
    command = [word for word in tiny_job.command(judge.build, judge.recipe, run, RANKS, *more) if not word.startswith("--max_restarts")]
    nodes = f"--nodes={len(judge.cluster.machines)}"
    done = subprocess.run(judge.cluster.command(*command, "--submit", nodes), env=judge.environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
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
    """What happens before a time limit: USR1, a checkpoint, exit code 75; Slurm starts the job again, and it goes on."""
    run = judge.work / "put_back"
    job = submit(judge, run, "steps=1000000")
    wait_for("checkpoint", lambda: judge.newest_step(run) > 0)
    subprocess.run(judge.cluster.command("scancel", "--signal=USR1", job), env=judge.environment, check=True)
    wait_for("requeue", lambda: re.search(r"JobState=PENDING .*Restarts=1 ", queue_state(judge, job), re.DOTALL))
    step = judge.newest_step(run)
    assert step == tiny_job.metrics(run)[-1]["step"], "the last step is not saved"
    wait_for("second start", lambda: judge.newest_step(run) > step)
    subprocess.run(judge.cluster.command("scancel", job), env=judge.environment, check=True)
    wait_for("end of the job", lambda: "JobState=CANCELLED" in queue_state(judge, job))
    steps = list(tiny_job.losses(run))
    assert steps == list(range(1, len(steps) + 1)), "a step is missing"
    print(f"SIGUSR1 of job {job}: step {step} saved, back in the queue, started again, gone on to {steps[-1]}")


def silent(judge: Judge) -> None:
    """A rank on the other node that is stopped; only its silence tells."""
    run = judge.work / "silent"
    process = judge.start(*judge.allocated(run, "--launcher=srun", "steps=1000000"))
    judge.wait_for_steps(run, process)
    os.kill(next(pid for pid in tiny_job.rank_pids(run) if hang_judge.rank_of(pid) == 1), signal.SIGSTOP)
    code, errors = judge.end(process)
    assert code == 6, errors
    check_words(errors, f"echelon: comm: rank 1 on {judge.cluster.machines[1].name}: silent in ")
    print(errors.splitlines()[-1])


def on_one_node(judge: Judge) -> None:
    expected = judge.losses_of_mpirun()
    by_hand(judge, expected)
    by_launcher(judge, expected)
    without_pmix(judge)
    stopped(judge)
    killed(judge)
    submitted(judge, expected)
    put_back(judge)


def on_two_nodes(judge: Judge) -> None:
    by_launcher(judge, judge.losses_of_mpirun())
    killed(judge)
    silent(judge)
    put_back(judge)


def run_on(build: str, nodes: TwoNodes | None, checks) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with slurm_cluster.SlurmCluster(work / "cluster", nodes=nodes) as cluster:
            checks(Judge(build, work, cluster))


def main() -> int:
    missing = slurm_cluster.missing_programs()
    if missing:
        print(f"not run: not installed: {', '.join(missing)} (apt-get install munge slurmctld slurmd slurm-client)")
        return NOT_RUN
    run_on(sys.argv[1], None, on_one_node)
    if missing := TwoNodes.possible():
        print(f"not run: two nodes cannot be made here: {missing}")
        return NOT_RUN
    with TwoNodes() as nodes:
        run_on(sys.argv[1], nodes, on_two_nodes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
