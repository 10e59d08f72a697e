"""PowerSGD of rank 4 beside PyTorch's DDP hook: two nodes of one rank each, joined by a slow link.

Both start from the same weights and see the same text, with several seeds of the weights; runs alternate A B B A. Prints the loss
at the end (mean of the last tenth of the steps) of each seed and the ratio of the medians of a step's seconds. Needs root (network
namespaces) and ./quickstart's text. Nothing else should run on the machine.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from flags import ROOT, parser_of
from small_run import CORPUS, prepare

sys.path.insert(0, str(ROOT / "tests" / "fault"))
from two_nodes import TwoNodes  # noqa: E402

LENGTH, BATCH, VOCABULARY, PORT = 64, 32, 2048, 29417
RECIPE = """name: "power_sgd"
seed: 1  steps: {steps}  clip_norm: 1.0
model {{ load: "{model}" }}
objective {{ [echelon/CausalLm] {{}} }}
data {{ train {{ [echelon/TokenFile] {{ path: "{corpus}/train" sequence_length: {length} }} }} shuffle: false }}
batch {{ global: {batch} }}
optimizer {{ [echelon/AdamW] {{ learning_rate: {rate} beta1: 0.9 beta2: 0.95 epsilon: 1e-8 weight_decay: 0.1 }} }}
sharding {{ zero: 0 }}
exchange {{ [echelon/PowerSgd] {{ rank: {rank} }} }}
"""


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--rate", type=int, default=100, help="of the link, Mbit/s (100)")
    parser.add_argument("--rank", type=int, default=4, help="of the approximation (4)")
    parser.add_argument("--seeds", type=int, default=3, help="of the first weights (3)")
    parser.add_argument("--steps", type=int, default=300, help="of a run (300)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="constant (1e-3)")
    return parser.parse_args()


def write_model(folder, seed):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=96, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
                        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def run_echelon(options, model, folder):
    recipe, out = folder / "power_sgd.textproto", folder / f"ours-{model.name}"
    recipe.write_text(RECIPE.format(steps=options.steps, model=model, corpus=CORPUS, length=LENGTH, batch=BATCH, rank=options.rank,
                                    rate=options.learning_rate))
    with TwoNodes(f"{options.rate}mbit") as nodes:
        words = [f"{options.build}/bin/echelon", "train", recipe, f"--hosts={nodes.hosts(1)}", "--ranks=2", f"--out={out}", "--max_restarts=0"]
        finish([nodes.popen(1, words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)])
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [s["loss"] for s in steps if "loss" in s], [s["step_seconds"] for s in steps if "loss" in s]


def run_peer(options, model, folder):
    with TwoNodes(f"{options.rate}mbit") as nodes:
        processes = []
        for rank in range(2):
            words = [sys.executable, Path(__file__).parent / "peer.py", f"--model={model}", f"--tokens={CORPUS}/train", f"--rank={rank}",
                     f"--meeting=tcp://{nodes.addresses[0]}:{PORT}", "--ranks=2", "--threads=1", f"--steps={options.steps}", f"--batch={BATCH}",
                     f"--length={LENGTH}", f"--rate={options.learning_rate}", f"--power_sgd={options.rank}"]
            processes.append(nodes.popen(rank + 1, words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"OMP_NUM_THREADS": "1"}))
        result = json.loads(finish(processes).strip().splitlines()[-1])
    return result["losses"], result["seconds"]


def finish(processes):
    """What the first of them printed."""
    outputs = [process.communicate(timeout=3600) for process in processes]
    for process, (_, errors) in zip(processes, outputs):
        if process.returncode:
            sys.exit(f"{process.args[-1]} ended with {process.returncode}: {errors.strip().splitlines()[-1:]}")
    return outputs[0][0]


def main():
    options = parse()
    TwoNodes.require()
    prepare(options.build)
    sides = {"Echelon": run_echelon, "DDP hook": run_peer}
    losses, seconds = {side: [] for side in sides}, {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="echelon-power-sgd-") as name:
        for seed in range(1, options.seeds + 1):
            model = Path(name) / f"model-{seed}"
            write_model(model, seed)
            for side in sorted(sides, reverse=seed % 2 == 0):
                curve, times = sides[side](options, model, Path(name))
                losses[side].append(float(np.mean(curve[-options.steps // 10 :])))
                seconds[side] += times[20:]
    for side in sides:
        low, middle, high = np.percentile(seconds[side], [25, 50, 75]) * 1000
        print(f"{side:<9} {middle:7.1f} ms [{low:.1f}, {high:.1f}] a step; loss at the end {np.mean(losses[side]):.4f} of {[round(x, 4) for x in losses[side]]}")
    print(f"Echelon takes {np.median(seconds['DDP hook']) / np.median(seconds['Echelon']):.2f}x the steps in the same time")


if __name__ == "__main__":
    main()
