"""A NaN that reaches loss or gradient ends the run with exit code 7 in the same step and with the same words on every layout, before
anything is updated or saved.

usage: numerics_judge.py BUILD
"""

import subprocess
from pathlib import Path

import tiny_job
import torch
import transformers
from safetensors.torch import load_file, save_file

LAYOUTS = (1, ()), (2, ()), (2, ("mesh.tp=2",)), (4, ()), (4, ("sharding.zero=1",))
LIMIT_SECONDS = 60


def poisoned_model(work: Path, tensor: str) -> Path:
    torch.manual_seed(0)
    folder = work / tensor
    config = transformers.GPT2Config(vocab_size=tiny_job.VOCABULARY, n_positions=32, n_embd=32, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].view(-1)[7] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def recipe_of(work: Path, base: str, model: Path) -> Path:
    start, end = base.index("model {"), base.index("objective")
    recipe = work / f"{model.name}.textproto"
    recipe.write_text(f'{base[:start]}model {{ load: "{model}" }}\n{base[end:]}')
    return recipe


def last_line(build: str, recipe: Path, run: Path, ranks: int, more: tuple[str, ...]) -> str:
    words = tiny_job.command(build, recipe, run, ranks, *more)
    result = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert result.returncode == 7, f"exit code {result.returncode}: {result.stderr}"
    assert not list(run.glob("checkpoints/step-*")), "poisoned weights were saved"
    assert (run / "metrics.jsonl").read_text() == "", "a step counts that was not taken"
    return result.stderr.strip().splitlines()[-1]


def main(build: str, recipe: Path, work: Path) -> None:
    base = recipe.read_text()
    for tensor in ("transformer.h.0.ln_1.weight", "transformer.h.0.mlp.c_proj.bias"):
        poisoned = recipe_of(work, base, poisoned_model(work, tensor))
        said = [last_line(build, poisoned, work / f"{tensor}-{index}", ranks, more) for index, (ranks, more) in enumerate(LAYOUTS)]
        assert len(set(said)) == 1, said
        assert said[0].startswith("echelon: numerics: step 1: "), said[0]
        print(f"NaN in {tensor}, {len(said)} layouts: {said[0]}")


if __name__ == "__main__":
    tiny_job.judge(main)
