"""The reference step of Echelon beside PyTorch, in one run on one machine.

A GPT-2 of 6 layers, width 384, 6 heads and 8,192 tied tokens takes 4 x 256 tokens a step with AdamW and clipping at 1.
Echelon with ZeRO-3 and its peer (PyTorch eager on one rank, DDP over gloo on more) start from the same weights and see
the same tokens; rounds alternate A B B A. Losses must agree before a time counts. Warm-up steps are left out. Printed:
medians with quartiles and their ratio, which counts only where the quartiles do not cross, and peak memory above that of the
same program when it has only loaded its libraries.

Other tasks: a Llama and a BERT of that size, batches of 1 x 128 tokens, a GPT-2 of 124 million parameters, and (lora) a Llama of 20
million that is tuned with LoRA of rank 16 on all its linears, beside PEFT.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flags import ROOT, parser_of

sys.path.insert(0, str(ROOT / "launch" / "prepare"))
import indexed  # noqa: E402

VOCABULARY, LENGTH, BATCH, RATE = 8192, 256, 4, 3e-4
AGREE = {"FP32": 1e-4, "BF16": 3e-2}  # relative, of each loss; sums in another order drift apart with the steps

RECIPE = """name: "reference_step"
seed: 1  steps: {steps}  clip_norm: 1.0  precision: {precision}
model {{ load: "{folder}/model" }}
objective {{ [echelon/{objective}] {{}} }}
data {{ train {{ [echelon/TokenFile] {{ path: "{folder}/tokens" sequence_length: {length} }} }} shuffle: false }}
batch {{ global: {batch} }}
optimizer {{ [echelon/AdamW] {{ learning_rate: {rate} beta1: 0.9 beta2: 0.95 epsilon: 1e-8 weight_decay: 0.1 }} }}
sharding {{ zero: {zero} }}
"""


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--task", choices=TASKS, default="full", help="what is trained (full)")
    parser.add_argument("--ranks", default="1,2,4", help="numbers of ranks, comma-separated (1,2,4)")
    parser.add_argument("--peer", choices=("DDP", "FSDP2"), default="DDP", help="PyTorch on several ranks (DDP)")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each side (6)")
    parser.add_argument("--steps", type=int, default=30, help="steps of a run, warm-up included (30)")
    parser.add_argument("--warmup", type=int, default=10, help="first steps of a run that are left out (10)")
    parser.add_argument("--precision", choices=("FP32", "BF16"), default="FP32")
    parser.add_argument("--zero", type=int, choices=range(4), default=3, help="ZeRO stage of Echelon (3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where both sides compute (cpu)")
    parser.add_argument("--busy_ok", action="store_true", help="measure although the machine is busy")
    return parser.parse_args()


def write_tokens(prefix, count):
    """Draws of a Zipf distribution: no file is needed, and losses move as they do on text."""
    weights = 1 / np.arange(1, VOCABULARY + 1)
    ids = np.random.default_rng(1).choice(VOCABULARY, count, p=weights / weights.sum())
    writer = indexed.Writer(str(prefix), indexed.dtype_for(VOCABULARY))
    writer.add(ids, True)
    writer.commit()
    meta = {
        "version": 1,
        "vocabulary_size": VOCABULARY,
        "largest_id": int(ids.max()),
        "pad_id": None,
        "bos_id": 0,
        "eos_id": 0,
        "unk_id": None,
        "cls_id": None,
        "sep_id": None,
        "mask_id": 1,
        "special_ids": [0, 1],
    }
    Path(f"{prefix}.meta.json").write_text(json.dumps(meta))


def llama(layers, tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=layers, num_attention_heads=6,
                         max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied)
    return LlamaForCausalLM(config)


def gpt2(layers, width, heads, vocabulary, positions=LENGTH):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config)


def bert():
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=6,
                        max_position_embeddings=LENGTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return BertForMaskedLM(config)


@dataclass
class Task:
    title: str
    model: Callable
    batch: int = BATCH
    length: int = LENGTH
    adapter: bool = False
    objective: str = "CausalLm"


TASKS = {
    "full": Task("GPT-2, 14 M, all weights", lambda: gpt2(6, 384, 6, VOCABULARY)),
    "short": Task("GPT-2, 14 M, 1 x 128 tokens", lambda: gpt2(6, 384, 6, VOCABULARY), batch=1, length=128),
    "llama": Task("Llama, 14 M, all weights", lambda: llama(6, tied=True)),
    "bert": Task("BERT, 14 M, all weights", bert, objective="MaskedLm"),
    "124m": Task("GPT-2, 124 M, all weights", lambda: gpt2(12, 768, 12, 50257)),
    "124m_long": Task("GPT-2, 124 M, 16 x 1,024 tokens", lambda: gpt2(12, 768, 12, 50257, 1024), batch=16, length=1024),
    "lora": Task("Llama, 20 M, LoRA r=16", lambda: llama(8, tied=False), adapter=True),
}


def write_model(folder, task):
    import torch

    torch.manual_seed(1)
    model = task.model()
    model.save_pretrained(folder / "model")
    if task.adapter:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        get_peft_model(model, lora).save_pretrained(folder / "adapter")


def write_inputs(folder, options):
    task = TASKS[options.task]
    write_tokens(folder / "tokens", options.steps * task.batch * task.length + 1)
    write_model(folder, task)
    recipe = RECIPE.format(
        steps=options.steps,
        precision=options.precision,
        folder=folder,
        length=task.length,
        batch=task.batch,
        objective=task.objective,
        rate=RATE,
        zero=options.zero,
    )
    (folder / "reference_step.textproto").write_text(recipe)
    if task.objective == "MaskedLm":  # what is masked is drawn: the peer gets the very batches
        command = [f"{options.build}/bin/echelon", "batches", folder / "reference_step.textproto", f"--steps={options.steps}",
                   f"--output={folder}/batches.safetensors"]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_echelon(folder, ranks, options):
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        f"{options.build}/bin/echelon",
        "train",
        str(folder / "reference_step.textproto"),
        f"--ranks={ranks}",
        f"--out={out}",
        *([f"--adapter={folder}/adapter"] if TASKS[options.task].adapter else []),
    ]
    finish(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), "echelon train")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    idle = idle_bytes([f"{options.build}/bin/echelon-rank", "--version"]) if options.device == "cpu" else 0
    memory = steps[-1]["memory_peak_bytes"] - idle
    return [line["loss"] for line in steps], [line["step_seconds"] for line in steps], memory


def idle_bytes(command):
    """Peak memory of a program that has loaded its libraries and done nothing; started by a small parent, whose own memory a
    process is charged with until it has become another program."""
    script = "import os, sys; pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]); print(os.wait4(pid, 0)[2].ru_maxrss)"
    output = subprocess.run([sys.executable, "-S", "-c", script, *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(output.split()[-1]) * 1024


def run_peer(folder, ranks, options, *more):
    cores = sorted(os.sched_getaffinity(0))
    threads = max(1, len(cores) // ranks)
    meeting = Path(tempfile.mkdtemp(dir=folder)) / "meeting"
    processes = []
    for rank in range(ranks):
        command = [
            sys.executable,
            str(Path(__file__).parent / "peer.py"),
            f"--model={folder}/model",
            f"--tokens={folder}/tokens",
            f"--meeting=file://{meeting}",
            f"--rank={rank}",
            f"--ranks={ranks}",
            f"--threads={threads}",
            f"--steps={options.steps}",
            f"--batch={TASKS[options.task].batch}",
            f"--length={TASKS[options.task].length}",
            f"--rate={RATE}",
            f"--precision={options.precision}",
            *([f"--adapter={folder}/adapter"] if TASKS[options.task].adapter else []),
            *([f"--batches={folder}/batches.safetensors"] if TASKS[options.task].objective == "MaskedLm" else []),
            f"--device={options.device}",
            *(["--sharded"] if options.peer == "FSDP2" else []),
            *more,
        ]
        bind = ["taskset", "-c", str(cores[rank])] if 1 < ranks <= len(cores) and threads == 1 else []
        processes.append(
            subprocess.Popen(
                bind + command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
        )
    outputs = finish_all(processes, "peer.py")
    result = json.loads(outputs[0].strip().splitlines()[-1])
    return result["losses"], result["seconds"], result["memory"]


def finish_all(processes, name):
    """A rank that dies leaves its peers waiting for it: the first that fails ends them all."""
    while any(process.poll() is None for process in processes) and not any(process.poll() for process in processes):
        time.sleep(0.1)
    failed = [process for process in processes if process.poll()]
    for process in processes:
        if process.poll() is None:
            process.kill()
    return [finish(process, name) for process in failed or processes]


def finish(process, name):
    output, errors = process.communicate(timeout=1800)
    if process.returncode:
        sys.exit(f"{name} ended with {process.returncode}: {errors.strip().splitlines()[-1:]}")
    return output


def disagreement(ours, theirs):
    """Largest relative difference of two lists of losses."""
    if len(ours) != len(theirs):
        sys.exit(f"{len(ours)} losses of Echelon, {len(theirs)} of its peer")
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))


def compare(folder, ranks, options):
    """Step seconds of both sides over all rounds, warm-up left out; the largest difference of losses; memory's ratio."""
    seconds, memory = {run_echelon: [], run_peer: []}, {}
    worst = 0.0
    for round_number in range(options.rounds):
        order = (run_echelon, run_peer) if round_number % 2 == 0 else (run_peer, run_echelon)
        losses = {}
        for side in order:
            losses[side], times, memory[side] = side(folder, ranks, options)
            seconds[side] += times[options.warmup :]
        worst = max(worst, disagreement(losses[run_echelon], losses[run_peer]))
    if worst > AGREE[options.precision]:
        sys.exit(f"losses at {ranks} ranks differ by {worst:.1e} relative: no time counts")
    return np.array(seconds[run_echelon]), np.array(seconds[run_peer]), worst, memory[run_echelon] / memory[run_peer]


def report(ranks, peer, ours, theirs, worst, memory):
    low, middle, high = np.percentile(ours, [25, 50, 75]) * 1000
    peer_low, peer_middle, peer_high = np.percentile(theirs, [25, 50, 75]) * 1000
    crossing = low <= peer_high and peer_low <= high
    print(
        f"{ranks:>5}  {'eager' if ranks == 1 else peer:<9} {middle:7.1f} [{low:.1f}, {high:.1f}]   "
        f"{peer_middle:7.1f} [{peer_low:.1f}, {peer_high:.1f}]   {peer_middle / middle:5.2f}x  "
        f"{'quartiles cross' if crossing else 'counts':<15}  losses within {worst:.0e}  memory {memory:.2f}x",
        flush=True,
    )


def processor_name():
    """As /proc/cpuinfo names it, with its family and model: clouds call them all alike."""
    facts = {}
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    return f"{facts.get('model name', '?')} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def device_name(device):
    import torch

    return processor_name() if device == "cpu" else f"{torch.cuda.get_device_name()}, {processor_name()}"


def describe(measurement, device="cpu"):
    """The machine, and what is measured on it."""
    import torch
    import transformers

    print(
        f"{device_name(device)}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.2f}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    print(f"{' '.join(sys.argv)}: {measurement}")


def refuse_busy_machine(options):
    if os.getloadavg()[0] > 0.3 and not options.busy_ok:
        sys.exit(f"the machine is busy (load {os.getloadavg()[0]:.2f}); wait, or measure all the same with --busy_ok")


def main():
    options = parse()
    refuse_busy_machine(options)
    describe(f"{options.precision}, ZeRO-{options.zero}, {options.rounds} rounds of {options.steps - options.warmup} steps; "
             "ms a step, median [quartiles]; ratio over 1: Echelon is faster", options.device)
    print("ranks  peer      Echelon                    peer                       ratio")
    with tempfile.TemporaryDirectory(prefix="echelon-bench-") as name:
        folder = Path(name)
        write_inputs(folder, options)
        for ranks in map(int, options.ranks.split(",")):
            report(ranks, options.peer, *compare(folder, ranks, options))


if __name__ == "__main__":
    main()
