"""What a language model of a held-out text must beat, in nats a token.

    baselines.py --train=PREFIX --heldout=PREFIX

prints the entropy of the held-out text's own unigrams and the cross-entropy of a smoothed bigram model of the
training text.
"""

import json

from failure import Failure, run
from indexed import read
from ngrams import Bigram, entropy, unigram_counts
from options import Parser


def vocabulary_of(*texts):
    return 1 + max((int(ids.max()) for ids in texts if len(ids)), default=0)


def main(argv):
    parser = Parser("baselines", description=__doc__.split("\n")[0])
    parser.add_argument("--train", required=True, metavar="PREFIX", help="token data that the bigram model counts")
    parser.add_argument("--heldout", required=True, metavar="PREFIX", help="token data that is judged")
    options = parser.parse(argv)
    train, _ = read(options.train)
    heldout, _ = read(options.heldout)
    if len(heldout) < 2:
        raise Failure("input", options.heldout, "fewer than two tokens")
    vocabulary = vocabulary_of(train, heldout)
    print(
        json.dumps(
            {
                "tokens": len(heldout),
                "unigram_entropy": entropy(unigram_counts(heldout, vocabulary)),
                "bigram_cross_entropy": Bigram(train, vocabulary).cross_entropy(heldout),
            }
        )
    )


if __name__ == "__main__":
    run(main)
