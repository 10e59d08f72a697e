"""Adapters against PEFT on random tiny models: its folders read here, and ours read there.

    peft_judge.py model_driver [--models=6]

For each pair of method and family: outputs of the adapted model within 2e-5; the folder that is written back holds the same
tensors, and PEFT, given it, computes the same again. Where PEFT can merge: transformers computes the same from our merged folder,
the same bytes on any number of ranks, on files and on the shards of a live model, and unmerging gives back the base's bytes.
"""

import os
import warnings

import torch
from safetensors.torch import load_file, save_file

from random_models import judge_main, run_jobs, tiny_models

import peft

warnings.filterwarnings("ignore")

MODULES = {
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
}
NORMS = {"gpt2": ["ln_1"], "llama": ["input_layernorm"], "bert": ["LayerNorm"]}
PREFIX = {"gpt2": "transformer.", "llama": "model.", "bert": "bert."}
EMBEDDING = {"gpt2": "wte", "llama": "embed_tokens", "bert": "word_embeddings"}


def lora(tiny, **more):
    targets = tiny.random.sample(MODULES[tiny.family], tiny.random.randint(1, len(MODULES[tiny.family])))
    if tiny.random.random() < 0.2:
        targets = "all-linear"
    rank = 1  # and 2 where a pattern says so: the smallest matrix has two rows
    patterns = {}
    if targets != "all-linear" and tiny.random.random() < 0.5:
        patterns = {"rank_pattern": {targets[0]: rank + 1}, "alpha_pattern": {targets[-1]: 5}}
    return peft.LoraConfig(
        r=rank, lora_alpha=tiny.random.randint(1, 8), target_modules=targets, fan_in_fan_out=tiny.family == "gpt2", **patterns, **more
    )


def lora_on_embedding(tiny):
    return peft.LoraConfig(r=2, lora_alpha=3, target_modules=[EMBEDDING[tiny.family], MODULES[tiny.family][0]],
                           fan_in_fan_out=tiny.family == "gpt2")


def lora_on_head(tiny):
    """Where the head's matrix is its own."""
    tied = tiny.bare or getattr(tiny.model.config, "tie_word_embeddings", False)
    head = [] if tied else [{"bert": "decoder"}.get(tiny.family, "lm_head")]
    return peft.LoraConfig(r=2, lora_alpha=3, use_dora=tiny.random.random() < 0.5, target_modules=[*head, MODULES[tiny.family][0]],
                           fan_in_fan_out=tiny.family == "gpt2")


def ia3(tiny):
    inputs = {"gpt2": "mlp.c_proj", "llama": "down_proj", "bert": "output.dense"}[tiny.family]
    targets = list({*tiny.random.sample(MODULES[tiny.family], 2), inputs})
    return peft.IA3Config(target_modules=targets, feedforward_modules=[inputs], fan_in_fan_out=tiny.family == "gpt2")


def task(tiny):
    return "FEATURE_EXTRACTION" if tiny.bare or tiny.family == "bert" else "CAUSAL_LM"


METHODS = {
    "lora": lora,
    "rslora": lambda tiny: lora(tiny, use_rslora=True),
    "dora": lambda tiny: lora(tiny, use_dora=True),
    "lora_embedding": lora_on_embedding,
    "lora_on_head": lora_on_head,
    "lora_with_norms": lambda tiny: lora(tiny, modules_to_save=NORMS[tiny.family]),
    "lora_with_biases": lambda tiny: lora(tiny, bias="all"),
    "ia3": ia3,
    "prefix": lambda tiny: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type=task(tiny)),
    "prompt": lambda tiny: peft.PromptTuningConfig(num_virtual_tokens=3, task_type=task(tiny)),
    "p_tuning": lambda tiny: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=7, task_type=task(tiny)),
}
OWN_ERROR = 8e-6  # of PEFT's float32, less than half of what is allowed between it and us
POSITIONS = {"prefix": 3, "prompt": 3, "p_tuning": 3}


def randomise(adapted):
    with torch.no_grad():
        for name, values in adapted.named_parameters():
            if values.requires_grad:
                values.copy_(1 + 0.3 * torch.randn_like(values) if "ia3" in name or "magnitude" in name else 0.2 * torch.randn_like(values))


def outputs_of(adapted, inputs):
    """Of the given tokens; a causal model also returns those of virtual tokens in front, which is left to each class."""
    with torch.no_grad():
        output = adapted(**inputs)
    name = "logits" if hasattr(output, "logits") else "last_hidden_state"
    return {name: output[name][:, -inputs["input_ids"].shape[1] :]}


def inputs_for(tiny, method):
    room = tiny.config.max_position_embeddings - POSITIONS.get(method, 0)
    inputs = {name: values[:, :room] for name, values in tiny.inputs().items()}
    if "attention_mask" in inputs and method in POSITIONS:
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    if method in POSITIONS:
        inputs.pop("token_type_ids", None)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return {name: values.contiguous() for name, values in inputs.items()}


def read_bytes(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def same_bytes(a, b):
    return a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


class Case:
    def __init__(self, tiny, method, folder):
        self.name = f"{method} on {tiny.name}"
        self.tiny, self.method = tiny, method
        self.stem = os.path.join(folder, self.name.replace(" ", "-"))
        self.inputs = inputs_for(tiny, method)
        save_file(self.inputs, self.stem + ".in")
        self.draw(peft.get_peft_model(tiny.model, METHODS[method](tiny)).eval())

    def draw(self, adapted):
        """Random values that float32 can tell the outputs of: three features that nearly agree make a norm blow rounding up."""
        for _ in range(20):
            randomise(adapted)
            adapted.save_pretrained(self.stem)
            # PEFT's own reading counts: what it wrote is what both sides see.
            self.expected = self.by_peft(self.stem)
            exact = self.by_peft(self.stem, torch.float64)
            if all((exact[name] - values).abs().max() < OWN_ERROR for name, values in self.expected.items()):
                return
        raise AssertionError(f"{self.name}: PEFT in float32 is never within {OWN_ERROR} of PEFT in float64")

    def by_peft(self, folder, dtype=torch.float32):
        base = self.tiny.class_().from_pretrained(self.tiny.folder, attn_implementation="eager", **self.tiny.loading)
        adapted = peft.PeftModel.from_pretrained(base, folder).eval().to(dtype)
        return outputs_of(adapted, self.inputs)

    def merges(self):
        tied = getattr(self.tiny.model.config, "tie_word_embeddings", False) and not self.tiny.bare
        return self.method not in (*POSITIONS, "lora_with_norms", "lora_with_biases") and not (self.method == "lora_embedding" and tied)

    def jobs(self):
        common = {"model": self.tiny.folder, "adapter": self.stem}
        merge = common | {"do": "merge"}
        merges = [merge | {"out": f"{self.stem}.merged{n}", "back": f"{self.stem}.back{n}", "dp": n} for n in (1, 3)]
        merges.append(common | {"do": "merge_shards", "out": f"{self.stem}.live"} | self.tiny.layout())
        return (merges if self.merges() else []) + [
            common | {"do": "forward", "input": self.stem + ".in", "output": self.stem + ".out"} | self.tiny.layout(),
            common | {"do": "copy_adapter", "out": self.stem + ".copy"} | self.tiny.layout(),
        ]

    def tensors(self, folder):
        """Of a model folder, by their names without the prefix of the family, which a bare model may lack."""
        files = [name for name in os.listdir(folder) if name.startswith("model") and name.endswith(".safetensors")]
        tensors = (load_file(os.path.join(folder, name)) for name in files)
        return {name.removeprefix(PREFIX[self.tiny.family]): values for each in tensors for name, values in each.items()}

    def merge_verdict(self):
        if not self.merges():
            return []
        wrong = []
        for name in os.listdir(self.stem + ".merged1"):
            if read_bytes(self.stem + ".merged1", name) != read_bytes(self.stem + ".merged3", name):
                wrong.append(f"merged {name} depends on ranks")
        expected, live = (self.tensors(self.stem + suffix) for suffix in (".merged1", ".live"))
        both = expected.keys() & live.keys()
        wrong += [f"{name} merged onto shards is not that of the folder" for name in both if not same_bytes(live[name], expected[name])]
        wrong += [] if len(both) > len(expected) / 2 else ["merged onto shards, tensors have other names"]
        for name in os.listdir(self.tiny.folder):
            if read_bytes(self.tiny.folder, name) != read_bytes(self.stem + ".back3", name):
                wrong.append(f"unmerging does not give {name} back")
        merged = self.tiny.class_().from_pretrained(self.stem + ".merged3", attn_implementation="eager", **self.tiny.loading).eval()
        for name, values in outputs_of(merged, self.inputs).items():
            error = (values - self.expected[name]).abs().max().item()
            if not error <= 2e-5:
                wrong.append(f"{name} of the merged model is off by {error:.3g}")
        return wrong

    def verdict(self, answers):
        errors = [answer["error"] for answer in answers if "error" in answer]
        if errors:
            return errors, 0.0
        given, wrong, worst = load_file(self.stem + ".out"), [], 0.0
        theirs, ours = (load_file(os.path.join(f, "adapter_model.safetensors")) for f in (self.stem, self.stem + ".copy"))
        # Left out: a table as it was, and BERT's output bias, of two names of which only one is in its formula.
        left_out = ("base_layer.weight", "predictions.decoder.bias", "predictions.bias")
        theirs, ours = (
            {name.replace(".base_layer.", "."): v for name, v in side.items() if not name.endswith(left_out)} for side in (theirs, ours)
        )
        if set(theirs) != set(ours):
            wrong.append(f"tensors differ: {sorted(set(theirs) ^ set(ours))}")
        wrong += [f"{name} is not written as read" for name in set(theirs) & set(ours) if not torch.equal(theirs[name], ours[name])]
        wrong += self.merge_verdict()
        again = self.by_peft(self.stem + ".copy")
        for name, values in self.expected.items():
            for what, other in (("ours", given.get(name)), ("PEFT on our folder", again.get(name))):
                error = float("inf") if other is None else (other - values).abs().max().item()
                worst = max(worst, error)
                if not error <= 2e-5:
                    wrong.append(f"{name} by {what} is off by {error:.3g}")
        return wrong, worst


def judge(driver, count, folder):
    cases = [
        Case(tiny, method, folder)
        for method in METHODS
        for tiny in tiny_models(count, folder)
    ]
    jobs = [job for case in cases for job in case.jobs()]
    answers = iter(run_jobs(driver, folder, jobs))
    failures, worst = [], 0.0
    for case in cases:
        wrong, error = case.verdict([next(answers) for _ in case.jobs()])
        failures += [f"{case.name}: {each}" for each in wrong]
        worst = max(worst, error)
    return failures, f"{len(cases)} adapted models, largest error {worst:.2g}"


if __name__ == "__main__":
    judge_main(judge, models=4)
