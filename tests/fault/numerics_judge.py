"""Steps whose loss or gradient is not finite are left out, the same ones on every layout; what comes too often ends the run with exit
code 7 in the same step and with the same words on every layout; a resumed run counts on.

usage: numerics_judge.py BUILD
"""

import json
import math
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy
import tiny_job
import torch
import transformers
from safetensors.torch import load_file, save_file

LAYOUTS = (1, ()), (2, ()), (2, ("mesh.tp=2",)), (4, ()), (4, ("sharding.zero=1",))
LIMIT_SECONDS = 60
SKIP = 3  # the default
SAME = 1e-5  # of a loss: float32 sums in another order, over a whole run
BAD_TOKEN = 4  # the corpus has it nowhere
EVERYTHING = "transformer.h.0.ln_1.weight"


def poisoned(folder: Path, model: transformers.PreTrainedModel, tensor: str, element: int | slice) -> Path:
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].view(-1)[element] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def gpt2(folder: Path, tensor: str) -> Path:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=tiny_job.VOCABULARY, n_positions=32, n_embd=32, n_layer=1, n_head=2)
    return poisoned(folder, transformers.GPT2LMHeadModel(config), tensor, 7)


def llama_with_a_bad_token(folder: Path) -> Path:
    """Untied, so that only what reads the token sees its row."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tiny_job.VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    row = slice(BAD_TOKEN * 32, (BAD_TOKEN + 1) * 32)
    return poisoned(folder, transformers.LlamaForCausalLM(config), "model.embed_tokens.weight", row)


def recipe_of(work: Path, base: str, model: Path) -> Path:
    start, end = base.index("model {"), base.index("objective")
    recipe = work / f"{model.name}.textproto"
    recipe.write_text(f'{base[:start]}model {{ load: "{model}" }}\n{base[end:]}')
    return recipe


def with_one_bad_sample(work: Path, base: str) -> str:
    """The recipe trains on a corpus of which sample 57 holds the bad token; it is evaluated on the corpus without."""
    tiny_job.write_corpus(work / "bad")
    tokens = numpy.fromfile(work / "bad.bin", dtype=numpy.uint16)
    tokens[57 * 16 + 5] = BAD_TOKEN
    tokens.tofile(work / "bad.bin")
    return base.replace(f'"{work / "corpus"}"', f'"{work / "bad"}"', 1)


def ended(build: str, recipe: Path, run: Path, ranks: int, more: tuple[str, ...]) -> list[str]:
    """What a run said that ends with exit code 7."""
    words = tiny_job.command(build, recipe, run, ranks, *more)
    result = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert result.returncode == 7, f"exit code {result.returncode}: {result.stderr}"
    return result.stderr.strip().splitlines()


def check_no_step_left_out(build: str, recipe: Path, run: Path, ranks: int, more: tuple[str, ...]) -> str:
    last = ended(build, recipe, run, ranks, ("numerics.skip=0", *more))[-1]
    assert not list(run.glob("checkpoints/step-*")), "poisoned weights were saved"
    assert (run / "metrics.jsonl").read_text() == "", "a step counts that was not taken"
    return last


def check_all_steps_left_out(build: str, recipe: Path, run: Path, ranks: int, more: tuple[str, ...]) -> str:
    said = ended(build, recipe, run, ranks, more)
    lines = [line for line in tiny_job.metrics(run) if "eval" not in line]
    assert [line["step"] for line in lines] == list(range(1, SKIP + 1)), lines
    assert all(line["skipped"] and line["loss"] is None and line["grad_norm"] is None for line in lines), lines
    warnings = [line for line in said if line.startswith("warning: step ")]
    assert len(warnings) == SKIP and warnings[-1].endswith(f"it is left out, {SKIP} in a row of at most {SKIP}"), warnings
    return said[-1]


def check_everything_poisoned(build: str, base: str, work: Path) -> None:
    for tensor, check, step, layouts in (
        (EVERYTHING, check_all_steps_left_out, SKIP + 1, LAYOUTS),
        ("transformer.h.0.mlp.c_proj.bias", check_no_step_left_out, 1, LAYOUTS[::2]),
    ):
        recipe = recipe_of(work, base, gpt2(work / tensor, tensor))
        runs = [work / f"{tensor}-{index}" for index in range(len(layouts))]
        said = [check(build, recipe, run, ranks, more) for run, (ranks, more) in zip(runs, layouts)]
        assert len(set(said)) == 1, said
        assert said[0].startswith(f"echelon: numerics: step {step}: "), said[0]
        print(f"NaN in {tensor}, {len(said)} layouts: {said[0]}")


def check_the_count_goes_on(build: str, work: Path) -> None:
    """A checkpoint between two steps that are left out: the run that goes on from it takes no more of them than an unbroken one."""
    recipe, run = work / f"{EVERYTHING}.textproto", work / "counted"
    tiny_job.finish(build, recipe, run, 2, "steps=2")
    last = ended(build, recipe, run, 1, ())[-1]
    assert last.startswith(f"echelon: numerics: step {SKIP + 1}: ") and f"after {SKIP} steps in a row" in last, last
    print(f"resumed after step 2: {last}")


def check_exchange_that_keeps(build: str, work: Path) -> None:
    """Of Sign, only steps that it sums exactly can be left out."""
    for step, more in (3, ("exchange=Sign", "exchange.exact_steps=2")), (1, ("optimizer=OneBitAdam", "clip_norm=0")):
        last = ended(build, work / f"{EVERYTHING}.textproto", work / more[0], 2, more)[-1]
        assert f"step {step}: " in last and "cannot be left out, as the exchange keeps" in last, last
        print(f"{more[0]}: {last}")


def skipped_steps(run: Path) -> list[int]:
    return [line["step"] for line in tiny_job.metrics(run) if line.get("skipped")]


def check_equal(run: Path, other: Path) -> float:
    """The largest relative difference of losses."""
    assert skipped_steps(run) == skipped_steps(other), f"{skipped_steps(run)} and {skipped_steps(other)} are left out"
    here, there = tiny_job.losses(run), tiny_job.losses(other)
    assert here.keys() == there.keys() and len(here) == tiny_job.STEPS
    taken = here.keys() - set(skipped_steps(run))
    assert all(math.isfinite(here[step]) for step in taken), here
    worst = max(abs(here[step] - there[step]) / there[step] for step in taken)
    assert worst < SAME, f"losses differ by {worst:.1e}"
    return worst


def check_export(run: Path, start: Path) -> None:
    before, after = load_file(start / "model.safetensors"), load_file(run / "export" / "model.safetensors")
    good = torch.arange(tiny_job.VOCABULARY) != BAD_TOKEN
    for name, tensor in after.items():
        rows = tensor[good] if name == "model.embed_tokens.weight" else tensor
        assert rows.isfinite().all(), f"{name} is not finite"
        assert not torch.equal(tensor, before[name]), f"{name} has learnt nothing"


def check_origin(said: str, replicas: int) -> None:
    """The first tensor is named, and the one rank that saw the bad sample."""
    whose = r"rank \d" if replicas > 1 else "every rank"
    where = rf"first the gradient of embeddings\.tokens\.weight; the loss of {whose}"
    assert re.search(rf"^warning: step \d+: .* not finite \({where}\); it is left out", said, re.MULTILINE), said


def check_one_bad_sample(build: str, recipe: Path, model: Path, work: Path) -> Path:
    runs, worst = [work / f"sample-{index}" for index in range(len(LAYOUTS))], 0.0
    for run, (ranks, more) in zip(runs, LAYOUTS):
        check_origin(tiny_job.finish(build, recipe, run, ranks, *more), ranks if "mesh.tp=2" not in more else 1)
        check_export(run, model)
        worst = max(worst, check_equal(run, runs[0]))
    assert len(skipped_steps(runs[0])) >= 2, "the bad sample was hardly seen"
    print(f"one bad sample: steps {skipped_steps(runs[0])} are left out on {len(runs)} layouts; losses differ by at most {worst:.1e}")
    return runs[1]  # 2 ranks


def check_replicas_that_train_apart(build: str, recipe: Path, model: Path, whole: Path, work: Path) -> None:
    """One replica sees the bad sample: both leave the step out, and still meet."""
    run = work / "apart"
    tiny_job.finish(build, recipe, run, 2, "mesh.replicas=2", "exchange=[echelon/DiLoCo] { inner_steps: 4 }")
    assert skipped_steps(run) == skipped_steps(whole), skipped_steps(run)
    check_export(run, model)
    print(f"DiLoCo: steps {skipped_steps(run)} are left out")


def kill_after_a_skipped_step(build: str, recipe: Path, run: Path) -> int:
    """Kills a rank as soon as a step is left out; the last step that the run had then told of."""
    process, metrics = tiny_job.start(build, recipe, run, 2), run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and '"skipped"' in metrics.read_text()):
        time.sleep(0.001)
    assert process.poll() is None, "the run ended before its first bad step"
    os.kill(tiny_job.rank_pids(run)[-1], signal.SIGKILL)
    process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 6, f"exit code {process.returncode}"
    return json.loads(metrics.read_text().splitlines()[-1])["step"]


def check_killed_run(build: str, recipe: Path, whole: Path, work: Path) -> None:
    broken = work / "broken"
    last = kill_after_a_skipped_step(build, recipe, broken)
    tiny_job.finish(build, recipe, broken, 2)
    assert tiny_job.metrics(broken) == tiny_job.metrics(whole), "metrics of the continued run differ"
    assert tiny_job.weights(broken) == tiny_job.weights(whole), "weights of the continued run differ"
    print(f"killed at step {last}, resumed: the same bits")


def main(build: str, recipe: Path, work: Path) -> None:
    base = recipe.read_text()
    check_everything_poisoned(build, base, work)
    check_the_count_goes_on(build, work)
    check_exchange_that_keeps(build, work)
    model = llama_with_a_bad_token(work / "llama")
    bad = recipe_of(work, with_one_bad_sample(work, base), model)
    whole = check_one_bad_sample(build, bad, model, work)
    check_replicas_that_train_apart(build, bad, model, whole, work)
    check_killed_run(build, bad, whole, work)


if __name__ == "__main__":
    tiny_job.judge(main)
