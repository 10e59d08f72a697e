"""Where the time of one step goes: profiles of the reference step as a table and as a picture, for docs/performance.md.

One step of PyTorch eager, of Echelon on one rank and of Echelon on four. A moment of a rank belongs to the innermost span that
says what it is: an operator, a kernel, a collective, or else a phase. Only a rank's first thread is seen: what it waits for
another thread in a kernel counts to the kernel. Recording an operator costs time of its own.
"""

import itertools
import json
import os
import subprocess
import tempfile
from datetime import date
from pathlib import Path

from flags import ROOT, parser_of
from reference_step import describe, processor_name, refuse_busy_machine, run_peer, write_inputs

PROFILED = 12
KINDS = {"products": "#4878d0", "attention": "#ee854a", "norms": "#6acc64", "activation": "#956cb4", "cross-entropy": "#d65f5f",
         "optimizer": "#d5bb67", "collectives": "#222222", "other": "#c8c8c8"}
NAMES = {  # their beginnings, of Echelon and of PyTorch
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "mkldnn::_linear_pointwise"),
    "attention": ("attention", "aten::scaled_dot_product", "aten::_scaled_dot_product"),
    "norms": ("norm forward", "norm backward", "aten::layer_norm", "aten::native_layer_norm"),
    "activation": ("activation", "aten::gelu"),
    "cross-entropy": ("cross-entropy", "aten::cross_entropy_loss", "aten::_log_softmax", "aten::nll_loss"),
    "optimizer": ("optimizer", "norm", "Optimizer.", "aten::_foreach"),
}
PHASES = {"forward": "#9ecae1", "backward": "#3182bd", "update": "#fdae6b"}
UNITS = ("#707070", "#b0b0b0")
CATEGORIES = ("phase", "unit", "collective", "kernel", "operator", "cpu_op", "user_annotation")
BEGIN, END = "<!-- written by tests/bench/run timeline -->", "<!-- to here -->"
FINEST = 1 / 2000  # of the picture's width: shorter stretches join what stands before them


def parse():
    parser = parser_of(__doc__)
    parser.add_argument("--precision", choices=("FP32", "BF16"), default="FP32")
    parser.add_argument("--docs", default=str(ROOT / "docs"), help="folder whose performance.md and step_timeline.svg are written (docs)")
    parser.add_argument("--busy_ok", action="store_true", help="measure although the machine is busy")
    parser.set_defaults(task="full", zero=3, steps=PROFILED + 1, device="cpu", peer="DDP")
    return parser.parse_args()


def record_eager(options, folder):
    """The spans of PyTorch's one rank in the profiled step."""
    trace = folder / "eager.json"
    run_peer(folder, 1, options, f"--profile={PROFILED}", f"--trace={trace}")
    return [read(trace)]


def record(options, folder, ranks):
    """The spans of each rank in the profiled step."""
    out = folder / f"run-{ranks}"
    command = [f"{options.build}/bin/echelon", "train", folder / "reference_step.textproto", f"--ranks={ranks}", f"--out={out}",
               f"--profile={PROFILED}"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [read(path) for path in sorted((out / "profile").glob("rank-*.json"))]


def read(path):
    spans = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X" and event["cat"] in CATEGORIES]
    return sorted(spans, key=lambda span: (span["ts"], -span["dur"]))


def kind_of(span):
    """None where the span does not say."""
    if span["cat"] == "collective":
        return "collectives"
    return next((kind for kind, names in NAMES.items() if span["name"].startswith(names)), None)


def stretches(spans):
    """(start, end, kind) of all that a rank does in its step, one after the other, in microseconds."""
    found, open_spans, now = [], [], 0.0

    def advance(to):
        nonlocal now
        if open_spans and to > now:
            found.append((now, to, open_spans[-1][1]))
        now = max(now, to)

    for span in spans:
        if span["cat"] == "unit":  # overlaps with autograd's operators
            continue
        while open_spans and open_spans[-1][0] <= span["ts"]:
            advance(open_spans[-1][0])
            open_spans.pop()
        advance(span["ts"])
        open_spans.append((span["ts"] + span["dur"], kind_of(span) or (open_spans[-1][1] if open_spans else "other")))
    while open_spans:
        advance(open_spans.pop()[0])
    return found


def milliseconds(ranks):
    """Of each kind, mean over the ranks."""
    sums = dict.fromkeys(KINDS, 0.0)
    for spans in ranks:
        for start, end, kind in stretches(spans):
            sums[kind] += (end - start) / 1000 / len(ranks)
    return sums


def table(results):
    columns = [milliseconds(ranks) for ranks in results.values()]
    lines = ["| ms of a rank | " + " | ".join(results) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {kind} | " + " | ".join(f"{sums[kind]:.1f}" for sums in columns) + " |" for kind in KINDS]
    return "\n".join(lines + ["| all | " + " | ".join(f"{sum(sums.values()):.1f}" for sums in columns) + " |"])


def write_into(page, text):
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def coarse(found, shortest):
    """The same with neighbours of a kind, and what is too short to be seen, joined."""
    joined = []
    for start, end, kind in found:
        if joined and start - joined[-1][1] < shortest and (joined[-1][2] == kind or end - start < shortest):
            joined[-1] = (joined[-1][0], end, joined[-1][2])
        else:
            joined.append((start, end, kind))
    return joined


def strip(axes, top, height, parts, begin, colour):
    places = [((start - begin) / 1000, (end - start) / 1000) for start, end in parts]
    axes.broken_barh(places, (top, height), facecolors=colour, linewidth=0)


def strip_of_spans(axes, top, spans, begin, colours):
    for span, colour in zip(spans, colours):
        strip(axes, top, 0.15, [(span["ts"], span["ts"] + span["dur"])], begin, colour)


def draw_rank(axes, row, spans, begin, width):
    """Its phases, what it did, its Units."""
    phases = [span for span in spans if span["cat"] == "phase" and span["name"] in PHASES]
    strip_of_spans(axes, row - 0.42, phases, begin, [PHASES[span["name"]] for span in phases])
    found = coarse(stretches(spans), width * FINEST)
    for kind, colour in KINDS.items():
        strip(axes, row - 0.25, 0.45, [(start, end) for start, end, of in found if of == kind], begin, colour)
    strip_of_spans(axes, row + 0.22, [span for span in spans if span["cat"] == "unit"], begin, itertools.cycle(UNITS))


def draw(results, path):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import patches, pyplot

    rows = [(title if len(ranks) == 1 else f"{title}: rank {rank}", spans, min(each[0]["ts"] for each in ranks))
            for title, ranks in results.items() for rank, spans in enumerate(ranks)]
    width = max(span["ts"] + span["dur"] - begin for _, spans, begin in rows for span in spans)
    figure, axes = pyplot.subplots(figsize=(10, 0.6 * len(rows) + 1.4))
    for row, (_, spans, begin) in enumerate(rows):
        draw_rank(axes, row, spans, begin, width)
    axes.set(yticks=range(len(rows)), yticklabels=[title for title, *_ in rows], xlim=(0, width / 1000),
             xlabel="milliseconds; the grey line below a rank: its Units, forward and backward")
    axes.invert_yaxis()
    colours = {**KINDS, **{f"line above: {phase}": colour for phase, colour in PHASES.items()}}
    handles = [patches.Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, ncols=4, loc="upper center", frameon=False, fontsize="small")
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.75 / figure.get_figheight()))
    figure.savefig(path)
    path.write_text("".join(line.rstrip() + "\n" for line in path.read_text().splitlines()))  # git minds blanks at an end


def main():
    options = parse()
    refuse_busy_machine(options)
    describe(f"{options.precision}, ZeRO-{options.zero}, step {PROFILED}")
    with tempfile.TemporaryDirectory(prefix="echelon-bench-") as name:
        write_inputs(Path(name), options)
        results = {"PyTorch eager": record_eager(options, Path(name)), "1 rank": record(options, Path(name), 1),
                   "4 ranks": record(options, Path(name), 4)}
    machine = f"{date.today()}, {processor_name()}, {len(os.sched_getaffinity(0))} cores, {options.precision}"
    text = f"{machine}.\n\n{table(results)}"
    print(text)
    write_into(Path(options.docs) / "performance.md", text)
    draw(results, Path(options.docs) / "step_timeline.svg")


if __name__ == "__main__":
    main()
