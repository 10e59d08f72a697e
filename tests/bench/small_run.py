"""A decoder of 0.43 million parameters on the quickstart's text: small enough for the slowest link and for many seeds."""

import json
import subprocess
import sys
from pathlib import Path

from flags import ROOT

CORPUS = ROOT / "corpus" / "small"
RECIPE = """name: "small"
parent: "base/tiny_decoder_clm"
steps: {steps}  seed: {seed}
model {{ architecture {{ width: 96 positions: 64 dropout: 0 attention_dropout: 0 }} }}
data {{
  train {{ [echelon/TokenFile] {{ path: "{corpus}/train" }} }}
  validation {{ [echelon/TokenFile] {{ path: "{corpus}/heldout" }} }}
}}
batch {{ global: 32 micro: 8 }}
schedule {{ [echelon/WarmupCosine] {{ warmup_steps: 20 }} }}
checkpoint {{ every: 1000000 }}
evaluate {{ batches: 100 }}
{more}
"""


def echelon(build, *arguments, runner=subprocess.run):
    """Runs the command to its end; its failure ends this program with its last line."""
    done = runner([f"{build}/bin/echelon", *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"echelon {arguments[0]} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def prepare(build):
    """Token files of 2,048 pieces from the text that ./quickstart has written."""
    if (CORPUS / "heldout.meta.json").exists():
        return
    text = ROOT / "corpus" / "text.jsonl"
    if not text.exists():
        sys.exit("run ./quickstart first: it writes corpus/text.jsonl")
    echelon(build, "prepare", f"--input={text}", "--tokenizer=train:bpe:2048", "--heldout=0.05", f"--out={CORPUS}/train",
            f"--heldout_out={CORPUS}/heldout")


def write_recipe(folder, steps, seed, more=""):
    path = folder / f"small-{seed}.textproto"
    path.write_text(RECIPE.format(steps=steps, seed=seed, corpus=CORPUS, more=more))
    return path


def read_lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def read_metrics(run):
    """The lines of steps, and the last held-out loss."""
    lines = read_lines(run)
    held_out = [line["eval"]["loss"] for line in lines if "eval" in line]
    return [line for line in lines if "loss" in line], held_out[-1]
