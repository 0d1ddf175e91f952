"""What an image costs over the batch size, in training and inference; writes docs/batch_sizes.svg and prints a table.

    python benchmarks/batch_sizes.py

The batch sizes take turns. The matrix product of as much arithmetic runs among them: where a curve leaves its line, the
arithmetic is no longer what an image costs.
"""

import pathlib
import statistics

import matplotlib
import speed
from absl import app, flags
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def define_flags():
    flags.DEFINE_list("batch_sizes", ["1", "2", "4", "8", "16", "32", "64", "128", "256"], "Images in a step.")
    flags.DEFINE_integer("rounds", 3, "How often each size is timed, in turn.")
    flags.DEFINE_string("plot", "docs/batch_sizes.svg", "Where the plot is written.")


def main(argv):
    del argv
    flag = flags.FLAGS
    sizes = [int(size) for size in flag.batch_sizes]
    network, product = speed.Contestant(speed.OURS), speed.Contestant(speed.LIMIT)
    cost = {what: {size: [] for size in sizes} for what in ("train", "infer")}
    limit = {what: [] for what in cost}
    for _ in range(flag.rounds):
        for what, of_sizes in cost.items():
            for size in sizes:
                calls = max(2, 32 // size)
                seconds = network.measure(what, size, calls)["seconds"]
                of_sizes[size] += [1000 * s / size for s in seconds]
            limit[what] += [1000 * s / 32 for s in product.measure(what, 32, 3)["seconds"]]
    network.end()
    product.end()

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    title = {"train": "training", "infer": "inference"}
    for axes, (what, of_sizes) in zip(figure.subplots(1, 2), cost.items(), strict=True):
        axes.plot(
            sizes, [statistics.median(ms) for ms in of_sizes.values()], "o-", color="#2166ac", label="the network"
        )
        axes.axhline(statistics.median(limit[what]), color="#b2182b", linestyle="--", label=speed.LIMIT)
        axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel="ms an image", title=title[what])
        axes.set_xticks(sizes, sizes)
        axes.legend(fontsize=8)
    path = pathlib.Path(flag.plot)
    temporary = path.with_name(f".tmp-{path.name}")
    with matplotlib.rc_context({"svg.hashsalt": "alexnet", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})
    temporary.replace(path)

    print("| ms an image, median | " + " | ".join(map(str, sizes)) + f" | {speed.LIMIT} |")
    print("|---" * (len(sizes) + 2) + "|")
    for what, of_sizes in cost.items():
        cells = [f"{statistics.median(ms):.1f}" for ms in [*of_sizes.values(), limit[what]]]
        print(f"| {title[what]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    define_flags()
    app.run(main)
