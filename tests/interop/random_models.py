"""Tiny models of transformers with random shapes and random weights, and a runner of Echelon on them."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

import torch
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

FAMILIES = ("bert", "gpt2", "llama")


def randomise(model):
    """Every tensor, those that start as ones and zeros too: a swap or a forgotten one must show."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            values.normal_()
            if values.dim() == 2:
                values.mul_(0.5 if "emb" in name or "wte" in name or "wpe" in name else values.shape[-1] ** -0.5)
            elif name.endswith("weight"):
                values.mul_(0.2).add_(1)
            else:
                values.mul_(0.2)
        # Where BERT's head is not tied, cls.predictions.bias is in no formula: only its decoder's bias is.
        if hasattr(model, "cls"):
            model.cls.predictions.bias.copy_(model.cls.predictions.decoder.bias)


class Tiny:
    """One model: `model` of transformers in its folder, `heads` that bound tensor parallelism, whether it is `bare`."""

    def __init__(self, family, seed, folder):
        self.family, self.seed = family, seed
        self.name = f"{family} seed {seed}"
        self.random = random.Random(f"{family} {seed}")
        torch.manual_seed(seed)
        self.bare = self.random.random() < 0.3
        self.loading = {}
        self.config = getattr(self, f"{family}_config")()
        self.model = self.class_()(self.config, **self.loading).eval()
        randomise(self.model)
        self.folder = os.path.join(folder, f"{family}-{seed}")
        self.model.save_pretrained(self.folder, max_shard_size=self.random.choice(["4KB", "5GB"]))

    def class_(self):
        headed, bare = {
            "gpt2": ("GPT2LMHeadModel", "GPT2Model"),
            "llama": ("LlamaForCausalLM", "LlamaModel"),
            "bert": ("BertForMaskedLM", "BertModel"),
        }[self.family]
        return getattr(transformers, bare if self.bare else headed)

    def gpt2_config(self):
        heads = self.random.choice([1, 2, 3, 4])
        self.divisible = heads
        return transformers.GPT2Config(
            n_layer=self.random.choice([1, 2]), n_head=heads, n_embd=heads * self.random.choice([3, 5, 8, 11]),
            n_inner=self.random.choice([None, 17, 30]), vocab_size=self.random.choice([37, 64, 101]),
            n_positions=self.random.choice([16, 19]),
            activation_function=self.random.choice(["gelu_new", "gelu", "relu", "silu"]),
            tie_word_embeddings=self.random.random() < 0.6, bos_token_id=None, eos_token_id=None,
            attn_implementation="eager")

    def llama_config(self):
        kv_heads = self.random.choice([1, 2])
        heads = kv_heads * self.random.choice([1, 2, 3])
        self.divisible = kv_heads
        rope = {"rope_type": "default", "rope_theta": self.random.choice([100.0, 10000.0])}
        if self.random.random() < 0.3:
            rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
        return transformers.LlamaConfig(
            num_hidden_layers=self.random.choice([1, 2]), num_attention_heads=heads, num_key_value_heads=kv_heads,
            hidden_size=heads * self.random.choice([3, 5, 8]), head_dim=self.random.choice([2, 6, 8]),
            intermediate_size=self.random.choice([13, 24]), vocab_size=self.random.choice([37, 64, 101]),
            max_position_embeddings=self.random.choice([16, 19]), attention_bias=self.random.random() < 0.5,
            mlp_bias=self.random.random() < 0.5, tie_word_embeddings=self.random.random() < 0.4, rope_parameters=rope,
            pad_token_id=self.random.choice([None, 0, 5]), bos_token_id=None, eos_token_id=None,
            attn_implementation="eager")

    def bert_config(self):
        heads = self.random.choice([1, 2, 3, 4])
        self.divisible = heads
        if self.bare and self.random.random() < 0.5:
            self.loading = {"add_pooling_layer": False}
        return transformers.BertConfig(
            num_hidden_layers=self.random.choice([1, 2]), num_attention_heads=heads,
            hidden_size=heads * self.random.choice([3, 5, 8, 11]), intermediate_size=self.random.choice([17, 30]),
            vocab_size=self.random.choice([37, 64, 101]), max_position_embeddings=self.random.choice([16, 19]),
            type_vocab_size=self.random.choice([1, 2, 3]), hidden_act=self.random.choice(["gelu", "relu", "gelu_new"]),
            pad_token_id=self.random.choice([0, 3, None]), tie_word_embeddings=self.random.random() < 0.7,
            attn_implementation="eager")

    def layout(self):
        """A random mesh that this model allows."""
        choices = [{}, {"dp": 2}, {"dp": 3}] + ([{"tp": 2}, {"tp": 2, "dp": 2}] if self.divisible % 2 == 0 else [])
        return self.random.choice(choices) | {"zero": self.random.choice([0, 1, 2, 3])}

    def inputs(self):
        c, draw = self.config, self.random
        batch, length = draw.choice([1, 2, 3, 4]), draw.randint(1, c.max_position_embeddings)
        inputs = {"input_ids": torch.randint(c.vocab_size, (batch, length))}
        padding = draw.choice(["none", "left", "right"])
        if padding != "none":
            mask = torch.ones(batch, length, dtype=torch.int64)
            for row in range(batch):
                cut = draw.randint(0, length - 1)
                row_mask = mask[row]
                row_mask[:cut] = 0
                if padding == "right":
                    mask[row] = row_mask.flip(0)
            inputs["attention_mask"] = mask
        if self.family == "bert" and draw.random() < 0.6:
            inputs["token_type_ids"] = torch.randint(c.type_vocab_size, (batch, length))
        return inputs


def tiny_models(count, folder):
    for family in FAMILIES:
        for seed in range(count):
            yield Tiny(family, seed, folder)


def run_jobs(driver, folder, jobs):
    """One answer for each job."""
    path = os.path.join(folder, "jobs.json")
    with open(path, "w") as file:
        json.dump(jobs, file)
    done = subprocess.run([driver, path], stdout=subprocess.PIPE, text=True, timeout=280)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(jobs):
        sys.exit(f"the driver ended with {done.returncode} behind {len(answers)} of {len(jobs)} jobs")
    return answers


def judge_main(judge, models=30):
    """Runs judge(driver, models per family, folder) → (list of failures, summary)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--models", type=int, default=models, help=f"of each family ({models})")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failures, summary = judge(options.driver, options.models, folder)
    for failure in failures:
        print("FAILED", failure)
    print(summary)
    sys.exit(1 if failures else 0)
