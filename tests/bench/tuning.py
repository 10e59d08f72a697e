"""Low-rank tuning beside full fine-tuning, on text that the quickstart models have not seen: WordNet's glosses.

Runs the recipes tune/{decoder,encoder} and tune/{decoder,encoder}_lora (or those named) with three seeds each and prints the
held-out loss before and after, and which share of full fine-tuning's gain each reaches. Needs ./quickstart's models, and the Debian
package wordnet-base.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from flags import ROOT, parser_of

GLOSSES = ROOT / "corpus" / "glosses"
DICTIONARY = Path("/usr/share/wordnet")


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("recipes", nargs="*", default=["decoder", "decoder_lora", "encoder", "encoder_lora"], help="below launch/recipes/tune")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe (3)")
    parser.add_argument("--ranks", type=int, default=2, help="of each run (2)")
    return parser.parse_args()


def echelon(options, *arguments):
    done = subprocess.run([f"{options.build}/bin/echelon", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"echelon {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def write_glosses(path):
    """One document of 200 glosses each: word, then what it means."""
    if not DICTIONARY.is_dir():
        sys.exit("install the Debian package wordnet-base first")
    lines = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (DICTIONARY / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue  # the licence
            head, gloss = line.split(" | ", 1)
            lines.append(f"{head.split(' ')[4].replace('_', ' ')}: {gloss.strip()}")
    np.random.default_rng(1).shuffle(lines)
    documents = ("\n".join(lines[i : i + 200]) for i in range(0, 20000, 200))
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents), encoding="utf-8")


def prepare(options):
    GLOSSES.mkdir(parents=True, exist_ok=True)
    text = GLOSSES / "glosses.jsonl"
    if not text.exists():
        write_glosses(text)
    for name, model in (("text", "decoder"), ("wordpiece", "encoder")):
        if (GLOSSES / name / "train.meta.json").exists():
            continue
        echelon(options, "prepare", f"--input={text}", f"--tokenizer=runs/quickstart_{model}/export", "--heldout=0.2",
                f"--out=corpus/glosses/{name}/train", f"--heldout_out=corpus/glosses/{name}/heldout")


def base_loss(options, family):
    return json.loads(echelon(options, "eval", f"tune/{family}", f"--model=runs/quickstart_{family}/export", f"--ranks={options.ranks}"))["loss"]


def tuned_loss(options, recipe, seed):
    out = ROOT / "runs" / "tuning" / f"{recipe}-{seed}"
    echelon(options, "train", f"tune/{recipe}", f"seed={seed}", f"--ranks={options.ranks}", f"--out={out}", "--resume=auto")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return next(line["eval"]["loss"] for line in reversed(lines) if "eval" in line)


def main():
    options = parse()
    prepare(options)
    before, gains = {}, {}
    print(f"{'recipe':<24} {'before':>8} {'after (mean of seeds)':>22} {'spread':>8} {'share of full gain':>20}")
    for recipe in options.recipes:
        family = recipe.split("_")[0]
        if family not in before:
            before[family] = base_loss(options, family)
        losses = [tuned_loss(options, recipe, seed) for seed in range(1, options.seeds + 1)]
        gains[recipe] = before[family] - float(np.mean(losses))
        share = f"{gains[recipe] / gains[family]:.2f}" if family in gains else "-"
        print(f"{recipe:<24} {before[family]:8.4f} {np.mean(losses):22.4f} {max(losses) - min(losses):8.4f} {share:>20}", flush=True)


if __name__ == "__main__":
    main()
