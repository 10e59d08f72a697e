"""Adapter training against PEFT in PyTorch, from the same folders and on the same batches.

LoRA, DoRA, IA3 and prefix tuning on a Llama: PEFT saves a fresh adapter, `echelon train --adapter` takes 20 steps from it on two
ranks, PyTorch's AdamW takes the same steps. Losses agree within 1e-5 relative in the first 10 steps and 5e-5 up to 20, and what
is written at the end is the adapter that PEFT trained, within 1e-4 of its largest entry.

usage: peft_training_judge.py BUILD
"""

import json
import sys
import tempfile
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file

from training_judge import FAMILIES, LENGTH, STEPS, echelon, write_corpus

RATE = 3e-3  # of fresh adapters: at 3e-4 twenty steps would move them too little to show a mistake
RECIPE = """
name: "judge"
seed: 5  steps: {steps}  clip_norm: 1
model {{ load: "{model}" }}
objective {{ [echelon/CausalLm] {{}} }}
data {{ train {{ [echelon/TokenFile] {{ path: "{corpus}" sequence_length: {length} }} }} }}
batch {{ global: 8 micro: 4 }}
optimizer {{ [echelon/AdamW] {{ learning_rate: {rate} beta2: 0.95 weight_decay: 0 }} }}
schedule {{ [echelon/Constant] {{}} }}
"""

LINEARS = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
METHODS = {
    "lora": peft.LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS, task_type="CAUSAL_LM"),
    "dora": peft.LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS, use_dora=True, task_type="CAUSAL_LM"),
    "ia3": peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
}


def train_with_peft(model, batches):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    losses = []
    for step in range(1, STEPS + 1):
        micros = sorted({int(key.split(".")[1]) for key in batches if key.startswith(f"{step}.")})
        targets = sum(int((batches[f"{step}.{micro}.labels"] != -100).sum()) for micro in micros)
        total = 0.0
        optimizer.zero_grad()
        for micro in micros:
            ids, labels = batches[f"{step}.{micro}.input_ids"], batches[f"{step}.{micro}.labels"]
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            (loss / targets).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        losses.append(total / targets)
    return losses


def difference(ours, theirs):
    """Largest difference of two folders' tensors, relative to each tensor's largest entry."""
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (ours, theirs))
    if set(first) != set(second):
        return float("inf")
    return max(((first[name] - second[name]).abs().max() / second[name].abs().max()).item() for name in first)


def judge(build, work, method):
    base, start, recipe = work / "base", work / f"{method}.start", work / f"{method}.textproto"
    torch.manual_seed(1)
    model = FAMILIES["llama"][1]()
    model.save_pretrained(base)
    adapted = peft.get_peft_model(model, METHODS[method]).train()
    adapted.save_pretrained(start)
    recipe.write_text(RECIPE.format(steps=STEPS, model=base, corpus=work / "corpus", length=LENGTH, rate=RATE))
    batches = work / f"{method}.safetensors"
    echelon(build, "batches", str(recipe), f"--steps={STEPS}", f"--output={batches}")
    expected = train_with_peft(adapted, load_file(batches))
    adapted.save_pretrained(work / f"{method}.end")
    run = work / f"{method}.run"
    echelon(build, "train", str(recipe), f"--adapter={start}", f"--out={run}", "--ranks=2")
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    errors = [abs(ours - theirs) / theirs for ours, theirs in zip(losses, expected, strict=True)]
    apart = difference(run / "adapter", work / f"{method}.end")
    good = max(errors[:10]) <= 1e-5 and max(errors) <= 5e-5 and apart <= 1e-4
    print(f"{method:7} loss {losses[0]:.3f} to {losses[-1]:.3f}: largest relative error {max(errors[:10]):.1e} in steps 1-10, "
          f"{max(errors):.1e} to {STEPS}; tensors {apart:.1e} -> {'ok' if good else 'FAILED'}")
    return good


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_corpus(work / "corpus")
        results = [judge(sys.argv[1], work, method) for method in METHODS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
