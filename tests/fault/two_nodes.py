"""Two nodes on one machine: namespaces with addresses, host names and shared memory of their own, and a link between them that
can be slow. Each has half of the machine's processors.

Needs root, iproute2 and a kernel that lets namespaces be made; where it has not, TwoNodes.possible() says why.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Host names and /dev/shm are a node's own too: Open MPI names its shared memory after the host and the rank there. Not by
# `ip netns exec`: its /sys lacks control groups, without which slurmd does not start.
ENTER = """#!/bin/sh
# Runs a command on a node: NODE COMMAND...
node=$1
shift
case $node in {cases} esac
exec nsenter --net="/run/netns/{prefix}$node" unshare --uts --mount /bin/sh -c '
  hostname "$1" && mount -t tmpfs tmpfs /dev/shm || exit 1
  shift
  exec "$@"' enter "{prefix}$node" taskset -c "$processors" "$@"
"""
AGENT = """#!/bin/sh
# What mpirun starts instead of ssh: HOST COMMAND...
host=$1
shift
exec {enter} "${{host##*.}}" /bin/sh -c "$*"
"""


def run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class TwoNodes:
    """with TwoNodes("100mbit") as nodes: nodes.popen(1, [...]); "": a link without a limit."""

    def __init__(self, rate: str = ""):
        self.rate = rate
        self.prefix = f"ech{os.getpid()}n"
        self.subnet = f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.folder = Path(tempfile.mkdtemp(prefix="echelon-nodes-"))
        self.addresses = [f"{self.subnet}.{node}" for node in (1, 2)]

    @staticmethod
    def possible() -> str:
        """Empty, or what is missing."""
        if os.geteuid() != 0:
            return "not root"
        if not shutil.which("ip") or not shutil.which("tc"):
            return "iproute2 is not installed"
        name = f"echprobe{os.getpid()}"
        if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
            return "the kernel refuses network namespaces"
        run("ip", "netns", "del", name)
        return ""

    @staticmethod
    def require() -> None:
        """Ends this program with a sentence where nodes are not possible."""
        if missing := TwoNodes.possible():
            sys.exit(f"two nodes cannot be made here: {missing}")

    def __enter__(self) -> "TwoNodes":
        for node in (1, 2):
            run("ip", "netns", "add", self.namespace(node))
        run("ip", "link", "add", "eth1", "netns", self.namespace(1), "type", "veth", "peer", "name", "eth1", "netns", self.namespace(2))
        for node in (1, 2):
            self.inside(node, "ip", "addr", "add", f"{self.addresses[node - 1]}/24", "dev", "eth1")
            self.inside(node, "ip", "link", "set", "eth1", "up")
            self.inside(node, "ip", "link", "set", "lo", "up")
        if self.rate:
            self.limit(self.rate)
        cases = " ".join(f"{node}) processors={self.processors(node)};;" for node in (1, 2))
        self.script("enter", ENTER.format(prefix=self.prefix, cases=cases))
        self.script("agent", AGENT.format(enter=self.folder / "enter"))
        return self

    def __exit__(self, *_) -> None:
        for node in (1, 2):
            pids = subprocess.run(["ip", "netns", "pids", self.namespace(node)], capture_output=True, text=True).stdout.split()
            for pid in pids:
                subprocess.run(["kill", "-9", pid], capture_output=True)
            subprocess.run(["ip", "netns", "del", self.namespace(node)], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def namespace(self, node: int) -> str:
        return f"{self.prefix}{node}"

    def script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    @staticmethod
    def processors(node: int) -> str:
        """As taskset wants them; one processor is shared."""
        usable = sorted(os.sched_getaffinity(0))
        half = max(1, len(usable) // 2)
        return ",".join(map(str, usable[:half] if node == 1 else usable[-half:]))

    def inside(self, node: int, *words: str) -> None:
        run("ip", "netns", "exec", self.namespace(node), *words)

    def limit(self, rate: str) -> None:
        """Of the link, from now on."""
        for node in (1, 2):
            limit = ("tbf", "rate", rate, "burst", "64kb", "latency", "200ms")
            self.inside(node, "tc", "qdisc", "replace", "dev", "eth1", "root", *limit)

    def hosts(self, ranks_per_node: int) -> str:
        return ",".join(f"{address}:{ranks_per_node}" for address in self.addresses)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "OMPI_MCA_plm_rsh_agent": str(self.folder / "agent"),
            "OMPI_MCA_btl_tcp_if_include": "eth1",
            "OMPI_MCA_oob_tcp_if_include": "eth1",
            "GLOO_SOCKET_IFNAME": "eth1",
        }

    def popen(self, node: int, words: list[str], **options) -> subprocess.Popen:
        command = [str(self.folder / "enter"), str(node), *map(str, words)]
        return subprocess.Popen(command, env={**self.environment(), **options.pop("env", {})}, **options)

    def run(self, node: int, words: list[str], **options) -> subprocess.CompletedProcess:
        """popen(), to its end."""
        process = self.popen(node, words, **options)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, output, errors)
