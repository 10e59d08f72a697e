"""The matrix products of the reference model by both libraries that PyTorch brings: which is faster at which shape.

models/layers/product_table.cc holds what this prints, by processor. Rounds alternate between the two; printed are the best in
GFLOP/s (what else runs only ever slows one down) and the ratio of oneDNN to the stock operator.
"""

import argparse
import platform
import time

import numpy as np
import torch

SHAPES = ((384, 384), (384, 1536), (1536, 384), (384, 8192))  # inputs, outputs
ROLES = ("forward", "input", "weight")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", default="1024,256", help="rows of a product, comma-separated (1024,256)")
    parser.add_argument("--shapes", default=",".join(f"{i}x{o}" for i, o in SHAPES), help="inputs x outputs, comma-separated")
    parser.add_argument("--threads", default="2,1", help="comma-separated (2,1)")
    parser.add_argument("--precision", default="FP32,BF16", help="comma-separated (FP32,BF16)")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each side (15)")
    return parser.parse_args()


def onednn(x, weight, bias=None):
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def sides(role, rows, inputs, outputs, dtype):
    """The stock operator and oneDNN's on the same memory."""
    x, gradient = torch.randn(rows, inputs).to(dtype), torch.randn(rows, outputs).to(dtype)
    weight, bias = torch.randn(outputs, inputs).to(dtype), torch.randn(outputs).to(dtype)
    place = torch.randn(outputs, inputs)

    def add(product):
        place.copy_(product)

    if role == "forward":
        return lambda: torch.addmm(bias, x, weight.t()), lambda: onednn(x, weight, bias)
    if role == "input":
        return lambda: torch.mm(gradient, weight), lambda: onednn(gradient, weight.t())
    if dtype == torch.float32:
        return lambda: torch.mm(gradient.t(), x, out=place), lambda: add(onednn(gradient.t(), x.t()))
    return lambda: add(torch.mm(gradient.t(), x)), lambda: add(onednn(gradient.t(), x.t()))


def seconds_of(call, repeats):
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def compare(role, rows, inputs, outputs, dtype, rounds):
    pair = sides(role, rows, inputs, outputs, dtype)
    flops = 2 * rows * inputs * outputs
    repeats = max(1, int(5e8 / flops))
    for call in pair:
        seconds_of(call, repeats)
    times = [[seconds_of(call, repeats) for call in pair] for _ in range(rounds)]
    return flops / np.min(times, axis=0) / 1e9


def main():
    options = parse()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    print(f"{'precision':10}{'threads':>8}{'role':>9}{'rows':>6}{'inputs':>8}{'outputs':>8}{'stock':>8}{'oneDNN':>8}{'ratio':>7}")
    for precision in options.precision.split(","):
        dtype = {"FP32": torch.float32, "BF16": torch.bfloat16}[precision]
        for threads in map(int, options.threads.split(",")):
            torch.set_num_threads(threads)
            for rows in map(int, options.rows.split(",")):
                for shape in options.shapes.split(","):
                    inputs, outputs = map(int, shape.split("x"))
                    for role in ROLES:
                        stock, other = compare(role, rows, inputs, outputs, dtype, options.rounds)
                        print(
                            f"{precision:10}{threads:>8}{role:>9}{rows:>6}{inputs:>8}{outputs:>8}"
                            f"{stock:>8.0f}{other:>8.0f}{other / stock:>7.2f}",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
