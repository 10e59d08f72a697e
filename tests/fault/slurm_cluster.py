"""A Slurm cluster of one node and its own, for as long as a test lasts: munged, slurmctld and slurmd in a temporary folder,
on free ports, gone with the test.
"""

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "salloc", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
LIMIT_SECONDS = 30
PR_SET_PDEATHSIG = 1

# No control groups and no system services: the cluster must run in a container. More processors than there are, so that
# several ranks find room on a small machine.
CONFIGURATION = """
ClusterName=echelon
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=pmix
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=10 State=UP
"""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if not find_program(name)]


def find_program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class SlurmCluster:
    """`with SlurmCluster(folder) as cluster: subprocess.run([…], env=cluster.environment)`"""

    def __init__(self, folder: Path, processors: int = 4):
        self.folder, self.processors, self.daemons = folder, processors, []
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "SlurmCluster":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if len(self.daemons) > 1:
            self._run("scancel", f"--user={getpass.getuser()}")
            self._wait("jobs to end", lambda: not self._run("squeue", "--noheader"), must=False)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self) -> None:
        # Slurm knows nodes by the short name.
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(
            folder=self.folder, host=host, user=getpass.getuser(), processors=self.processors,
            controller_port=free_port(), node_port=free_port()))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge = self.folder / "munge"
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}.socket",
                     f"--pid-file={munge}.pid", f"--log-file={munge}.log", f"--seed-file={munge}.seed")
        self._wait("munged", (self.folder / "munge.socket").exists)
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D", "-N", host)
        self._wait("an idle node", lambda: self._run("sinfo", "--noheader", "--format=%T") == "idle")

    def _daemon(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.out").open("w")
        self.daemons.append(subprocess.Popen(
            [find_program(name), *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=end_with_parent))

    def _run(self, name: str, *arguments: str) -> str:
        try:
            return subprocess.run([name, *arguments], env=self.environment, capture_output=True, text=True, timeout=10).stdout.strip()
        except subprocess.TimeoutExpired:
            return ""

    def _wait(self, what: str, reached, must: bool = True) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not reached():
            dead = [daemon.args[0] for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                if must:
                    raise RuntimeError(f"no {what}; ended: {dead}; {self._last_words()}")
                return
            time.sleep(0.1)

    def _last_words(self) -> str:
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"{log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-10:]) for log in logs)
