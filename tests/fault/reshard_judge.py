"""A checkpoint of four ranks goes on at any other number of ranks, stage and tensor parallelism, and other programs read it.

usage: reshard_judge.py BUILD
"""

import shutil
from pathlib import Path

import tiny_job
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HALF = 12
LAYOUTS = [(1, 0, 1), (2, 1, 1), (3, 2, 1), (2, 3, 2), (4, 3, 2)]


def check_layouts(build, work, recipe) -> None:
    whole, start = work / "whole", work / "start"
    tiny_job.finish(build, recipe, whole, 4)
    tiny_job.finish(build, recipe, start, 4, f"steps={HALF}")
    expected = tiny_job.losses(whole)
    for ranks, zero, tp in LAYOUTS:
        run = work / f"ranks{ranks}-zero{zero}-tp{tp}"
        shutil.copytree(start, run)
        tiny_job.finish(build, recipe, run, ranks, f"sharding.zero={zero}", f"mesh.tp={tp}")
        got = tiny_job.losses(run)
        worst = max(abs(got[step] - expected[step]) / expected[step] for step in range(HALF + 1, tiny_job.STEPS + 1))
        print(f"ranks={ranks} zero={zero} tp={tp}: losses after the change within {worst:.1e}")
        # float32 sums in another order: the tolerance of equal runs up to step 20.
        assert worst <= 1e-4


def check_readers(work) -> None:
    run = work / "whole"
    checkpoint = run / "checkpoints" / f"step-{tiny_job.STEPS:08}"
    exported = load_file(run / "export" / "model.safetensors")
    name = "embeddings.tokens.weight"
    state = {name: torch.zeros_like(exported["transformer.wte.weight"]), f"optim.exp_avg.{name}": torch.zeros(1)}
    state[f"optim.exp_avg.{name}"] = torch.zeros_like(state[name])
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(checkpoint)), no_dist=True)
    assert torch.equal(state[name], exported["transformer.wte.weight"]), "torch.distributed.checkpoint reads other values"
    assert state[f"optim.exp_avg.{name}"].abs().max() > 0
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    seen = {event.step: event.value for event in events.Scalars("train/loss")}
    assert seen.keys() == set(range(1, tiny_job.STEPS + 1))
    assert all(abs(seen[step] - loss) < 1e-5 for step, loss in tiny_job.losses(run).items())
    print("torch.distributed.checkpoint reads the checkpoint, TensorBoard the events")


def main(build: str, recipe: Path, work: Path) -> None:
    check_layouts(build, work, recipe)
    check_readers(work)


if __name__ == "__main__":
    tiny_job.judge(main)
