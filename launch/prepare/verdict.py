"""Holds a run's last evaluation against what its held-out text allows: `verdict.py --run=DIR --heldout=PREFIX`."""

import json
import os

from failure import Failure, run
from options import Parser
from vocabulary import read_json

SHARE = 0.75  # of the unigram entropy: below it a model has learnt more than which tokens are frequent


def last_evaluation(folder):
    """The last evaluation line of a run's metrics."""
    path, found = os.path.join(folder, "metrics.jsonl"), None
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                found = json.loads(line) if '"eval"' in line else found
    except (OSError, ValueError) as error:
        raise Failure("input", path, "not the metrics of a run") from error
    if found is None:
        raise Failure("input", path, "holds no evaluation", "give the recipe a validation source")
    return found


def compared(loss, name, bound):
    return f"{'below' if loss < bound else 'NOT below'} {name} {bound:.4f}"


def main(argv):
    parser = Parser("verdict", description=__doc__)
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--heldout", required=True, metavar="PREFIX", help="token data that the run was evaluated on")
    options = parser.parse(argv)
    numbers = read_json(options.heldout + ".meta.json").get("statistics", {})
    recorded = last_evaluation(options.run)
    loss = recorded["eval"]["loss"]
    if loss is None:
        raise Failure("numerics", options.run, f"the evaluation behind step {recorded['step']} is not finite")
    entropy = numbers["unigram_entropy"]
    verdict = compared(loss, f"{SHARE} x unigram entropy {entropy:.4f} =", SHARE * entropy)
    if "bigram_cross_entropy" in numbers and is_next_token(options.run):
        verdict += ", " + compared(loss, "the bigram model's", numbers["bigram_cross_entropy"])
    print(f"{options.run}: validation loss {loss:.4f} after step {recorded['step']}: {verdict}")


def is_next_token(folder):
    """A bigram model predicts the next token: only a causal model does the same task."""
    with open(os.path.join(folder, "recipe.textproto"), encoding="utf-8") as file:
        return "CausalLm" in file.read()


if __name__ == "__main__":
    run(main)
