"""What a language model must beat, in nats a token: the entropy of single tokens and a smoothed bigram model."""

import numpy as np

CHUNK = 1 << 22


def entropy(counts):
    """Entropy in nats of the distribution that `counts` [V] describes; 0 for no counts at all."""
    total = counts.sum()
    if total == 0:
        return 0.0
    p = counts[counts > 0] / total
    return float(-(p * np.log(p)).sum())


def unigram_counts(ids, vocabulary):
    counts = np.zeros(vocabulary, dtype=np.int64)
    for start in range(0, len(ids), CHUNK):
        counts += np.bincount(ids[start : start + CHUNK], minlength=vocabulary)
    return counts


def pair_counts(ids, vocabulary):
    """(distinct pairs coded as first · V + second, sorted; how often each occurs)."""
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for start in range(0, len(ids) - 1, CHUNK):
        chunk = ids[start : start + CHUNK + 1].astype(np.int64)
        new, often = np.unique(chunk[:-1] * vocabulary + chunk[1:], return_counts=True)
        merged, place = np.unique(np.concatenate([keys, new]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, often])).astype(np.int64)
        keys = merged
    return keys, counts


class Bigram:
    """Absolute discounting, interpolated with add-one unigrams:

        p(w|v) = max(c(v,w) − D, 0) / c(v) + D·T(v) / c(v) · p(w)

    c counts in the training text, T(v) is the number of distinct followers of v, D = n1 / (n1 + 2·n2) from the numbers
    of pairs seen once and twice. Nothing is tuned. Ney, Essen and Kneser 1994.
    """

    def __init__(self, ids, vocabulary):
        self.vocabulary = vocabulary
        unigrams = unigram_counts(ids, vocabulary)
        self.unigram = (unigrams + 1) / (unigrams.sum() + vocabulary)
        self.keys, self.counts = pair_counts(ids, vocabulary)
        first = self.keys // vocabulary
        self.total = np.bincount(first, self.counts, minlength=vocabulary)
        self.followers = np.bincount(first, minlength=vocabulary)
        once, twice = (self.counts == 1).sum(), (self.counts == 2).sum()
        self.discount = once / (once + 2 * twice) if once else 0.5

    def probability(self, previous, token):
        """p(token | previous), elementwise over two arrays of ids."""
        total = self.total[previous]
        seen = np.maximum(total, 1)
        keys = previous * self.vocabulary + token
        place = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        count = np.where(self.keys[place] == keys, self.counts[place], 0) if len(self.keys) else np.zeros(len(keys))
        back_off = np.where(total > 0, self.discount * self.followers[previous] / seen, 1.0)
        return np.maximum(count - self.discount, 0) / seen + back_off * self.unigram[token]

    def cross_entropy(self, ids):
        """Mean of −log p(token | the one before) over a text, the first token left out; nats."""
        total = 0.0
        for start in range(0, len(ids) - 1, CHUNK):
            chunk = ids[start : start + CHUNK + 1].astype(np.int64)
            total -= np.log(self.probability(chunk[:-1], chunk[1:])).sum()
        return float(total / max(len(ids) - 1, 1))
