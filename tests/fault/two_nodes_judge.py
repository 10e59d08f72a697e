"""Ranks on two nodes: the step of one node, whichever exchange; compressing between nodes only puts fewer bytes on the link.

usage: two_nodes_judge.py BUILD
"""

import json
import sys
import tempfile
from pathlib import Path

import tiny_job
from two_nodes import TwoNodes

NOT_RUN = 77
RANKS_PER_NODE = 2
TOLERANCE = 1e-5  # relative, of losses whose sums are in another order
LOSSLESS = {
    "exact": (),
    "top-k, all": ("exchange=[echelon/TopK] { fraction: 1 between_nodes_only: true exact_steps: 0 }",),
}
LAYOUTS = {
    "ZeRO-3": ("sharding.zero=3",),
    "tp of 2": ("sharding.zero=1", "mesh.tp=2"),
    "two replicas": ("sharding.zero=3", "mesh.replicas=2"),
}
# exchange: (recipe field, largest last loss above exact, relative; most bytes on the link as a share of exact's, of which two exact
# steps of 24 and the talk of start and end are 0.1)
LOSSY = {
    "int8": ("exchange=[echelon/Int8] { between_nodes_only: true }", 0.01, 0.35),
    "sign": ("exchange=[echelon/Sign] { between_nodes_only: true exact_steps: 2 }", 0.05, 0.25),
    "top-k": ("exchange=[echelon/TopK] { fraction: 0.05 between_nodes_only: true exact_steps: 2 }", 0.05, 0.3),
    "PowerSGD": ("exchange=[echelon/PowerSgd] { rank: 2 between_nodes_only: true exact_steps: 2 }", 0.05, 0.3),
}
# Weights do not travel at ZeRO-0; the model is wide enough for its gradients to outweigh the rest.
SHAPE = ("sharding.zero=0", "model.architecture.width=128")


def link_bytes(nodes) -> int:
    """That node 1 has sent over its link."""
    link = json.loads(nodes.run(1, ["ip", "-json", "-statistics", "link", "show", "eth1"], stdout=-1, text=True).stdout)[0]
    return link["stats64"]["tx"]["bytes"]


class Judge:
    def __init__(self, build: str, work: Path, nodes: TwoNodes):
        self.build, self.nodes = build, nodes
        self.work = work
        self.recipe = tiny_job.write_recipe(work)

    def train(self, name: str, *more: str) -> tuple[dict[int, float], int]:
        """Losses, and bytes that went over the link."""
        run, before = self.work / name.replace(" ", "-"), link_bytes(self.nodes)
        words = tiny_job.command(self.build, self.recipe, run, 2 * RANKS_PER_NODE, *more)
        done = self.nodes.run(1, [*words, f"--hosts={self.nodes.hosts(RANKS_PER_NODE)}"], stdout=-3, stderr=-1, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        return tiny_job.losses(run), link_bytes(self.nodes) - before

    def one_node(self, name: str, *more: str) -> dict[int, float]:
        run = self.work / f"{name.replace(' ', '-')}-on-one-node"
        tiny_job.finish(self.build, self.recipe, run, 2 * RANKS_PER_NODE, *more)
        return tiny_job.losses(run)


def check_equal(name: str, losses: dict[int, float], expected: dict[int, float]) -> None:
    worst = max(abs(losses[step] / loss - 1) for step, loss in expected.items())
    print(f"{name}: losses within {worst:.1e} of one node's")
    assert losses.keys() == expected.keys() and worst <= TOLERANCE


def check_layouts(judge: Judge) -> None:
    for name, fields in LAYOUTS.items():
        check_equal(name, judge.train(name, *fields)[0], judge.one_node(name, *fields))


def check_exchanges(judge: Judge) -> None:
    expected, exact_bytes = judge.one_node("exact", *SHAPE), 0
    for name, fields in LOSSLESS.items():
        losses, sent = judge.train(name, *SHAPE, *fields)
        check_equal(f"{name}, {sent:,} bytes on the link", losses, expected)
        exact_bytes = exact_bytes or sent
    for name, (field, above, share) in LOSSY.items():
        losses, sent = judge.train(name, *SHAPE, field)
        end = losses[tiny_job.STEPS] / expected[tiny_job.STEPS] - 1
        print(f"{name}: {sent:,} bytes on the link ({sent / exact_bytes:.2f} of exact), last loss {end:+.4f}")
        assert end <= above and sent <= share * exact_bytes


def main() -> int:
    missing = TwoNodes.possible()
    if missing:
        print(f"not run: two nodes cannot be made here: {missing}")
        return NOT_RUN
    with tempfile.TemporaryDirectory(prefix="echelon-two-nodes-") as work, TwoNodes() as nodes:
        judge = Judge(sys.argv[1], Path(work), nodes)
        check_layouts(judge)
        check_exchanges(judge)
    return 0


if __name__ == "__main__":
    sys.exit(main())
