"""Training against a plain PyTorch loop over transformers, from the same folder and on the same batches.

For each family: a small random model is saved by transformers; `echelon train` takes 20 steps at a constant rate from it;
PyTorch's AdamW takes the same steps on the batches that `echelon batches` wrote. Losses agree within 1e-5 relative in the
first 10 steps and 5e-5 up to 20.

usage: training_judge.py BUILD SOURCE
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import load_file

STEPS, VOCABULARY, LENGTH = 20, 211, 32
# A hundred times the usual: otherwise the tolerance is wider than what decay does in so few steps.
WEIGHT_DECAY = 10.0

FAMILIES = {
    "gpt2": (
        "causal",
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=VOCABULARY, n_positions=64, n_embd=48, n_layer=2, n_head=4,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
            )
        ),
    ),
    "llama": (
        "causal",
        lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
            )
        ),
    ),
    "bert": (
        "masked",
        lambda: transformers.BertForMaskedLM(
            transformers.BertConfig(
                vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
                max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
            )
        ),
    ),
}

RECIPE = """
name: "judge"
seed: 5  steps: {steps}  clip_norm: 1
model {{ load: "{model}" }}
objective {{ [echelon/{objective}] {{}} }}
data {{ train {{ [echelon/TokenFile] {{ path: "{corpus}" sequence_length: {length} }} }} }}
batch {{ global: 8 micro: 4 }}
optimizer {{ [echelon/AdamW] {{ learning_rate: 3e-4 beta2: 0.95 weight_decay: {decay} }} }}
schedule {{ [echelon/Constant] {{}} }}
"""


def write_corpus(prefix: Path) -> None:
    tokens = numpy.random.default_rng(3).integers(5, VOCABULARY, 20000, dtype=numpy.uint16)
    prefix.with_suffix(".bin").write_bytes(tokens.tobytes())
    header = b"MMIDIDX\0\0" + numpy.uint64(1).tobytes() + numpy.uint8(8).tobytes()
    counts = numpy.array([1, 2], numpy.uint64).tobytes()
    arrays = numpy.array([len(tokens)], numpy.int32).tobytes() + numpy.array([0, 0, 1], numpy.int64).tobytes()
    prefix.with_suffix(".idx").write_bytes(header + counts + arrays)
    meta = {"vocabulary_size": VOCABULARY, "pad_id": 0, "mask_id": 4, "special_ids": [0, 1, 2, 3, 4]}
    Path(f"{prefix}.meta.json").write_text(json.dumps(meta))


def echelon(build: str, *arguments: str) -> None:
    subprocess.run([f"{build}/bin/echelon", *arguments], check=True, stdout=subprocess.DEVNULL)


def decays(name: str, parameter: torch.Tensor) -> bool:
    return parameter.dim() > 1


def reference_losses(folder: Path, batches: dict, kind: str) -> list[float]:
    """The plain loop: sum of cross-entropies over the global batch, divided by its targets; clip; AdamW."""
    classes = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "bert": "BertForMaskedLM"}
    config = json.loads((folder / "config.json").read_text())
    model = getattr(transformers, classes[config["model_type"]]).from_pretrained(folder, attn_implementation="eager").train()
    groups = [
        {"params": [p for n, p in model.named_parameters() if decays(n, p)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in model.named_parameters() if not decays(n, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(1, STEPS + 1):
        micros = sorted({int(key.split(".")[1]) for key in batches if key.startswith(f"{step}.")})
        labels = [batches[f"{step}.{micro}.labels"] for micro in micros]
        targets = sum(int((label != -100).sum()) for label in labels)
        total = 0.0
        optimizer.zero_grad()
        for micro, label in zip(micros, labels):
            logits = model(input_ids=batches[f"{step}.{micro}.input_ids"]).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-100, reduction="sum")
            (loss / targets).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(total / targets)
    return losses


def judge(build: str, work: Path, family: str, ranks: int) -> bool:
    kind, make = FAMILIES[family]
    torch.manual_seed(1)
    folder, recipe = work / family, work / f"{family}.textproto"
    make().save_pretrained(folder)
    objective = {"causal": "CausalLm", "masked": "MaskedLm"}[kind]
    recipe.write_text(RECIPE.format(steps=STEPS, model=folder, objective=objective, corpus=work / "corpus", length=LENGTH, decay=WEIGHT_DECAY))
    batches = work / f"{family}.safetensors"
    echelon(build, "batches", str(recipe), f"--steps={STEPS}", f"--output={batches}")
    expected = reference_losses(folder, load_file(batches), kind)
    run = work / f"{family}.run{ranks}"
    echelon(build, "train", str(recipe), f"--out={run}", f"--ranks={ranks}")
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    errors = [abs(ours - theirs) / theirs for ours, theirs in zip(losses, expected, strict=True)]
    good = max(errors[:10]) <= 1e-5 and max(errors) <= 5e-5
    print(f"{family:6} ranks={ranks}: largest relative error {max(errors[:10]):.1e} in steps 1-10, {max(errors):.1e} to {STEPS}"
          f" -> {'ok' if good else 'FAILED'}")
    return good


def main() -> int:
    build = sys.argv[1]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_corpus(work / "corpus")
        results = [judge(build, work, family, ranks) for family, ranks in [("gpt2", 1), ("llama", 2), ("bert", 2), ("gpt2", 2)]]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
