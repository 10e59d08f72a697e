"""A Slurm cluster of its own, for as long as a test lasts: munged, slurmctld and a slurmd for each node in a temporary folder, on
free ports, gone with the test. One node is this machine; two are those of two_nodes.py.
"""

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from two_nodes import TwoNodes

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "salloc", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
LIMIT_SECONDS = 30
PR_SET_PDEATHSIG = 1

# No control groups and no system services: the cluster must run in a container. More processors than there are, so that
# several ranks find room on a small machine. A job that was put back may start again when its credential has expired.
CONFIGURATION = """
ClusterName=echelon
SlurmctldHost={first.name}({first.address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
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
{machines}
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


@dataclass
class Machine:
    name: str
    address: str
    enter: list[str]  # what runs a command on it

    def line(self, processors: int) -> str:
        return f"NodeName={self.name} NodeAddr={self.address} CPUs={processors} State=UNKNOWN"


def machines_of(nodes: TwoNodes | None) -> list[Machine]:
    if not nodes:  # Slurm knows nodes by the short name
        return [Machine(socket.gethostname().split(".")[0], "127.0.0.1", [])]
    return [Machine(nodes.namespace(node), nodes.addresses[node - 1], [str(nodes.folder / "enter"), str(node)]) for node in (1, 2)]


class SlurmCluster:
    """`with SlurmCluster(folder) as cluster: subprocess.run([…], env=cluster.environment)`"""

    def __init__(self, folder: Path, processors: int = 4, nodes: TwoNodes | None = None):
        self.folder, self.processors, self.daemons = folder, processors, []
        self.machines = machines_of(nodes)
        self.environment = {**(nodes.environment() if nodes else os.environ), "SLURM_CONF": str(folder / "slurm.conf")}

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
        for name in ("state", *(f"{name}-{machine.name}" for machine in self.machines for name in ("spool", "tmp"))):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(
            folder=self.folder, first=self.machines[0], user=getpass.getuser(),
            machines="\n".join(machine.line(self.processors) for machine in self.machines), controller_port=free_port(), node_port=free_port()))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge = self.folder / "munge"
        first = self.machines[0]
        self._daemon(first, "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}.socket",
                     f"--pid-file={munge}.pid", f"--log-file={munge}.log", f"--seed-file={munge}.seed")
        self._wait("munged", (self.folder / "munge.socket").exists)
        self._daemon(first, "slurmctld", "-D")
        for machine in self.machines:
            self._daemon(machine, "slurmd", "-D", "-N", machine.name)
        self._wait("idle nodes", lambda: self._run("sinfo", "--noheader", "--format=%T %D") == f"idle {len(self.machines)}")

    def command(self, *words: str) -> list[str]:
        """As it is run on the first node."""
        return [*self.machines[0].enter, *words]

    def _daemon(self, machine: Machine, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}-{machine.name}.out").open("w")
        self.daemons.append(subprocess.Popen(
            [*machine.enter, find_program(name), *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=end_with_parent))

    def _run(self, name: str, *arguments: str) -> str:
        try:
            return subprocess.run(self.command(name, *arguments), env=self.environment, capture_output=True, text=True, timeout=10).stdout.strip()
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
