"""How fast the network trains and answers, beside what one would use instead and beside what the machine can do.

    pip install alexnet-tf[bench]
    python benchmarks/speed.py            # `make bench`: writes its tables and its plot into docs/performance.md
    python benchmarks/speed.py --quick    # small batches, two rounds: prints the tables only

Every contestant (benchmarks/contestants.py) is a process of its own, which is idle while another is timed. They work
in turn, so that a machine whose speed drifts is slow for all. Figures are medians over all calls, with their range.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import contestants
import matplotlib
from absl import app, flags
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

OURS, LIMIT = "this project", "matrix product"
PYTORCH = ("PyTorch", "PyTorch compiled")
KERAS = ("plain Keras", "plain Keras with XLA")
# What, batch size, calls a round. The large ones come last, without Keras under XLA: seven processes would fill 23 GB.
CASES = (("train", 32, 3), ("infer", 1, 20), ("infer", 32, 5), ("train", 128, 1), ("infer", 128, 2))
LARGE, NOT_IN_LARGE = 128, "plain Keras with XLA"
QUICK_CASES = (("train", 4, 2), ("infer", 1, 4))
PACKAGES = ("tensorflow", "keras", "torch", "onnxruntime", "numpy")
BEGIN, END = "<!-- From here to the next such line: written by `make bench`. -->", "<!-- End of `make bench`. -->"
CHILD_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


def define_flags():
    flags.DEFINE_boolean("quick", False, "Small batches and two rounds, to see that all runs; prints only.")
    flags.DEFINE_integer("rounds", 5, "How often each contestant is timed, in turn.")
    flags.DEFINE_list("contestants", list(contestants.CONTESTANTS), "Who is timed.")
    flags.DEFINE_list("starts", [OURS, *KERAS, *PYTORCH], "Of whom the start and the memory are measured.")
    flags.DEFINE_string("report", "docs/performance.md", "The page whose tables are replaced, beside its plot.")


class Contestant:
    """A process of benchmarks/contestants.py."""

    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, contestants.__file__, name],
            env=os.environ | CHILD_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def measure(self, *words):
        """What the process answers to the words; raises RuntimeError where it ended instead."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} failed at {words}: run benchmarks/contestants.py with it to see why.")
        return json.loads(answer)

    def end(self):
        self.process.kill()
        self.process.wait()


def measure_speed(names, cases, rounds):
    """A dict from (what, batch size) to a dict from contestants to the seconds of every call."""
    running = {name: Contestant(name) for name in names}
    results = {}
    for what, batch_size, calls in cases:
        if batch_size >= LARGE and NOT_IN_LARGE in running:
            running.pop(NOT_IN_LARGE).end()
        here = {name: c for name, c in running.items() if what == "infer" or name != "onnxruntime"}
        for contestant in here.values():
            contestant.measure(what, batch_size, 1)  # builds it
        seconds = {name: [] for name in here}
        for _ in range(rounds):
            for name, contestant in here.items():
                seconds[name] += contestant.measure(what, batch_size, calls)["seconds"]
        results[what, batch_size] = seconds
        for name in here:
            print(f"{what} {batch_size}: {name}, {rate(batch_size, seconds[name])} images/s", flush=True)
    for contestant in running.values():
        contestant.end()
    return results


def measure_starts(names, batch_size):
    """A dict from contestants to the seconds from the start of a process to the end of its first step, and to the MB of
    memory that it used at most in three steps more."""
    results = {}
    for name in names:
        begin = time.perf_counter()
        contestant = Contestant(name)
        contestant.measure("train", batch_size, 0)
        seconds = time.perf_counter() - begin
        results[name] = seconds, contestant.measure("train", batch_size, 3)["peak_mb"]
        contestant.end()
        print(f"{name}: first step after {seconds:.1f} s, {results[name][1]:,.0f} MB", flush=True)
    return results


def measure_fit(batch_size, steps, rounds):
    """What benchmarks/fit.py finds: seconds of a step, bare and within `fit`, and images/s of the reading."""
    command = [sys.executable, str(pathlib.Path(__file__).with_name("fit.py"))]
    command += [f"--batch_size={batch_size}", f"--steps={steps}", f"--rounds={rounds}"]
    output = subprocess.run(
        command, env=os.environ | CHILD_ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def rate(batch_size, seconds):
    """Images a second as "median (least to most)"."""
    median, least, most = (batch_size / s for s in (statistics.median(seconds), max(seconds), min(seconds)))
    return f"{median:.3g} ({least:.3g} to {most:.3g})"


def tables(speed, starts, fit):
    """The tables, as lines of Markdown."""
    names = list(dict.fromkeys(name for seconds in speed.values() for name in seconds))
    median = {case: {n: statistics.median(s) for n, s in seconds.items()} for case, seconds in speed.items()}
    title = {"train": "training", "infer": "inference"}
    lines = ["| images/s | " + " | ".join(f"{title[w]}, batch {b}" for w, b in speed) + " |"]
    lines += ["|---" * (len(speed) + 1) + "|"]
    for name in names:
        label = f"*{name} of the same arithmetic*" if name == LIMIT else name
        cells = [rate(case[1], seconds[name]) if name in seconds else "" for case, seconds in speed.items()]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for label, others in (
        ("the best of PyTorch", PYTORCH),
        ("the best of PyTorch and onnxruntime", (*PYTORCH, "onnxruntime")),
        ("plain Keras", KERAS[:1]),
        ("plain Keras with XLA", KERAS[1:]),
        ("the matrix product", (LIMIT,)),
    ):
        cells = []
        for times in median.values():
            there = [times[name] for name in others if name in times]
            cells.append(f"{min(there) / times[OURS]:.2f}" if there and OURS in times else "")
        lines.append(f"| **{OURS} / {label}** | " + " | ".join(cells) + " |")
    if starts:
        batch_size = max(b for w, b in speed if w == "train")
        lines += [
            "",
            f"| | to the end of the first step, s | peak memory, training at batch {batch_size}, MB |",
            "|---|---|---|",
        ]
        lines += [f"| {name} | {seconds:.1f} | {peak:,.0f} |" for name, (seconds, peak) in starts.items()]
    if fit:
        lines += ["", f"| a training step at batch {fit['batch_size']} | ms | |", "|---|---|---|"]
        for name, key in (
            ("bare", "bare"),
            ("in `model.fit`, TensorBoard on, a batch in memory", "fit"),
            ("in `model.fit`, TensorBoard on, photographs read and decoded meanwhile", "fit_reading"),
        ):
            lines.append(f"| {name} | {1000 * fit[key]:.0f} | {100 * (fit[key] / fit['bare'] - 1):+.1f} % |")
        lines += ["", f"The input pipeline alone: {fit['input_rate']:,.0f} images/s."]
    return lines


def describe_machine():
    """A line on processor, memory and versions."""
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = next((line.split(":")[1].strip() for line in text.splitlines() if "model name" in line), platform.machine())
    instructions = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if f" {name} " in f"{text} "]
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return (
        f"{datetime.date.today()}: {model}, {len(os.sched_getaffinity(0))} cores, {', '.join(instructions)}; Python "
        f"{platform.python_version()}, {', '.join(versions)}."
    )


def save_plot(path, speed):
    """Bars of images/s, one panel for each case, as SVG."""
    figure = Figure(figsize=(2.6 * len(speed), 3.4), layout="constrained")
    panels = figure.subplots(1, len(speed), squeeze=False)[0]
    for axes, ((what, batch_size), seconds) in zip(panels, speed.items(), strict=True):
        names = [name for name in seconds if name != LIMIT]
        rates = [batch_size / statistics.median(seconds[name]) for name in names]
        axes.bar(range(len(names)), rates, color=["#2166ac" if name == OURS else "#bdbdbd" for name in names])
        if LIMIT in seconds and batch_size > 1:  # at batch 1 the weights must be read for each image: another limit
            axes.axhline(batch_size / statistics.median(seconds[LIMIT]), color="#b2182b", linestyle="--", label=LIMIT)
            axes.legend(fontsize=7)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_title(f"{'training' if what == 'train' else 'inference'}, batch {batch_size}", fontsize=10)
        axes.set_ylabel("images/s")
    save_svg(path, figure)


def save_svg(path, figure):
    """Writes a matplotlib figure, without a date, so that the same figures give the same file."""
    temporary = path.with_name(f".tmp-{path.name}")
    with matplotlib.rc_context({"svg.hashsalt": "alexnet", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})
    temporary.replace(path)


def write_report(path, lines):
    """Puts the lines between the two marks of a page; the rest of it stays."""
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"`report` must hold the lines {BEGIN!r} and {END!r}. Received: report={path}")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text("\n".join([before + BEGIN, "", *lines, "", after]))
    temporary.replace(path)


def main(argv):
    del argv
    flag = flags.FLAGS
    cases, rounds = (QUICK_CASES, 2) if flag.quick else (CASES, flag.rounds)
    speed = measure_speed(flag.contestants, cases, rounds)
    starts = measure_starts(
        [name for name in flag.starts if name in flag.contestants],
        max(batch_size for what, batch_size, _ in cases if what == "train"),
    )
    fit = measure_fit(batch_size=4 if flag.quick else 32, steps=4 if flag.quick else 8, rounds=rounds)
    lines = [describe_machine(), "", *tables(speed, starts, fit)]
    if not flag.quick:
        report = pathlib.Path(flag.report)
        save_plot(report.with_suffix(".svg"), speed)
        write_report(report, [*lines, "", f"![Images a second of all contestants]({report.stem}.svg)"])
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    define_flags()
    app.run(main)
