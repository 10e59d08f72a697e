"""The reference step in PyTorch: transformers' GPT-2 with its best documented settings.

Eager on one process, DDP or FSDP2 over gloo on several. Trains on the batches that Echelon sees and prints one JSON line of
losses and step times.
"""

import argparse
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "launch" / "prepare"))
import indexed  # noqa: E402


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--adapter", default="", help="PEFT folder to train")
    parser.add_argument("--batches", default="", help="file of `echelon batches` that is trained on, of one rank")
    parser.add_argument("--meeting", default="", help="where several ranks find each other: file://PATH or tcp://ADDRESS:PORT")
    parser.add_argument("--sharded", action="store_true", help="FSDP2, each block a unit, in place of DDP")
    parser.add_argument("--power_sgd", type=int, default=0, help="rank of DDP's PowerSGD hook; 0: exact sums (0)")
    for name, default in (("rank", 0), ("ranks", 1), ("threads", 1), ("steps", 40), ("batch", 4), ("length", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--profile", type=int, default=0, help="step that is recorded, from 1; 0: none (0)")
    parser.add_argument("--trace", default="", help="where to: a Chrome trace")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--precision", choices=("FP32", "BF16"), default="FP32")
    return parser.parse_args()


def load(options):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    config = AutoConfig.from_pretrained(options.model)
    if config.model_type == "gpt2":
        config.activation_function = "gelu_pytorch_tanh"  # the same function as gelu_new, in one kernel
    model = (AutoModelForMaskedLM if options.batches else AutoModelForCausalLM).from_pretrained(
        options.model, config=config, attn_implementation="sdpa", dtype=torch.float32
    )
    if not options.adapter:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, options.adapter, is_trainable=True)


def optimizer_for(model, rate):
    learning = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in learning if p.dim() > 1]
    others = [p for p in learning if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8, fused=True)


def spread(model, options):
    """The model over the ranks."""
    if options.sharded:
        from torch.distributed.fsdp import fully_shard

        mesh = dist.init_device_mesh("cpu", (options.ranks,))
        for block in next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList)):
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    model = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    if options.power_sgd:
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=options.power_sgd, start_powerSGD_iter=2)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return model


def batch_of(ids, step, options):
    """This rank's rows of step `step`: samples are the text cut every `length` tokens, in order; or as they stand in a file."""
    if options.batches:
        return ids.get_tensor(f"{step + 1}.0.input_ids"), ids.get_tensor(f"{step + 1}.0.labels")
    rows = options.batch // options.ranks
    first = step * options.batch + options.rank * rows
    samples = [ids[i * options.length : i * options.length + options.length + 1] for i in range(first, first + rows)]
    tokens = torch.stack([torch.from_numpy(sample.astype("int64")) for sample in samples])
    return tokens[:, :-1], tokens[:, 1:]


def train_step(model, optimizer, inputs, targets, options):
    """Every rank has the same number of targets, so DDP's mean of gradients is the gradient of the global mean."""
    with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "BF16"):
        logits = model(input_ids=inputs, **({} if model_is_encoder(model) else {"use_cache": False})).logits
    loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def recorded(action, path):
    """What it returns; a profile of it goes to `path`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.profiler.record_function("step"):
        result = action()
    profile.export_chrome_trace(path)
    return result


def model_is_encoder(model):
    return "MaskedLM" in type(model).__name__


def peak_bytes(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main():
    options = parse()
    import transformers  # noqa: F401

    if options.adapter:
        import peft  # noqa: F401
    idle = peak_bytes(options.device)
    torch.set_num_threads(options.threads)
    model = load(options).train().to(options.device)
    if options.ranks > 1:
        dist.init_process_group("gloo", init_method=options.meeting, rank=options.rank, world_size=options.ranks)
        model = spread(model, options)
    optimizer = optimizer_for(model, options.rate)
    ids = safe_open(options.batches, "pt") if options.batches else indexed.read(options.tokens)[0]
    losses, seconds = [], []
    for step in range(options.steps):
        inputs, targets = batch_of(ids, step, options)
        begin = time.perf_counter()
        action = partial(train_step, model, optimizer, inputs.to(options.device), targets.to(options.device), options)
        loss = recorded(action, options.trace) if step + 1 == options.profile else action()
        if options.ranks > 1:
            dist.all_reduce(loss)
        losses.append(float(loss) / options.ranks)  # waits for a GPU
        seconds.append(time.perf_counter() - begin)
    if options.rank == 0:
        print(json.dumps({"losses": losses, "seconds": seconds, "memory": peak_bytes(options.device) - idle}), flush=True)
    if options.ranks > 1:
        dist.barrier()  # a rank that leaves first can leave the others waiting for it
        dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
