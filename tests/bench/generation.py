"""`echelon generate` beside transformers' generate with its cache, in one run on one machine.

A GPT-2 and a Llama of 14 million parameters continue 1 and 16 prompts of 32 tokens by 128, greedily. Rounds alternate A B B A; loading is
left out on both sides. In FP32 both must choose the same tokens, or no time counts; in BF16 rounding decides between near equals, and
the share of equal tokens is printed.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flags import parser_of
from reference_step import TASKS, VOCABULARY, describe, refuse_busy_machine

PROMPT, NEW = 32, 128


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="runs of each side (6)")
    parser.add_argument("--busy_ok", action="store_true", help="measure although the machine is busy")
    return parser.parse_args()


def write_tokenizer(folder):
    """A word for each id: text and ids say the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def write_model(folder, name):
    """Larger weights than a fresh model's, so that what comes next depends on what was before; and no end of text."""
    import torch

    torch.manual_seed(1)
    model = TASKS[name].model()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    write_tokenizer(folder)


def run_echelon(folder, prompts, precision, options):
    lines = [json.dumps({"prompt": " ".join(f"t{i}" for i in ids)}) for ids in prompts]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    command = [f"{options.build}/bin/echelon", "generate", f"--model={folder}/model", f"--prompts={folder}/prompts.jsonl",
               f"--max_new_tokens={NEW}", f"--precision={precision}", "--ranks=1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    speed = re.search(r"in ([0-9.]+) s: \d+ tokens/s", done.stderr)
    if done.returncode or not speed:
        sys.exit(f"echelon generate ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    texts = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    return [[int(word[1:]) for word in text.split()][PROMPT:] for text in texts], float(speed.group(1))


class Transformers:
    def __init__(self, folder, precision):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        dtype = {"FP32": torch.float32, "BF16": torch.bfloat16}[precision]
        self.model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype, attn_implementation="sdpa").eval()

    def run(self, prompts):
        import torch

        ids = torch.tensor(prompts)
        began = time.monotonic()
        with torch.inference_mode():
            all_ids = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, use_cache=True,
                                          pad_token_id=0)
        return all_ids[:, PROMPT:].tolist(), time.monotonic() - began


def compare(folder, batch, precision, options):
    """Seconds of both sides over all rounds, and the share of tokens on which they agree."""
    draw = random.Random(batch)
    prompts = [[draw.randrange(2, VOCABULARY) for _ in range(PROMPT)] for _ in range(batch)]
    peer = Transformers(folder, precision)
    sides = [lambda: run_echelon(folder, prompts, precision, options), lambda: peer.run(prompts)]
    peer.run(prompts)  # warm
    seconds = [[], []]
    for number in range(options.rounds):
        tokens = [None, None]
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            tokens[side], taken = sides[side]()
            seconds[side].append(taken)
    agreeing = float(np.mean(np.array(tokens[0]) == np.array(tokens[1])))
    if precision == "FP32" and agreeing < 1:
        sys.exit(f"only {agreeing:.1%} of the tokens are the same: no time counts")
    return seconds[0], seconds[1], agreeing


def main():
    options = parse()
    refuse_busy_machine(options)
    describe(f"{options.rounds} rounds; s for {NEW} new tokens behind each prompt, median [quartiles]; ratio over 1: Echelon is faster")
    print("model   precision  prompts  Echelon               transformers          ratio   same tokens")
    for name in ("full", "llama"):
        with tempfile.TemporaryDirectory(prefix="echelon-bench-") as place:
            folder = Path(place)
            write_model(folder / "model", name)
            for precision in ("FP32", "BF16"):
                for batch in (1, 16):
                    *sides, agreeing = compare(folder, batch, precision, options)
                    low_middle_high = [np.percentile(side, [25, 50, 75]) for side in sides]
                    ours, theirs = (f"{m:6.3f} [{a:.3f}, {b:.3f}]" for a, m, b in low_middle_high)
                    print(f"{TASKS[name].title.split(',')[0]:<7} {precision:<9}  {batch:>7}  {ours}  {theirs}  "
                          f"{low_middle_high[1][1] / low_middle_high[0][1]:5.2f}x  {agreeing:.1%}", flush=True)


if __name__ == "__main__":
    main()
