"""Prints a variant as a table, or what differs between two, or which variants there are."""

import difflib
import functools
import gc
import math
import pathlib
import re
import shlex

import keras
from absl import flags

from alexnet_tf import layers, model, variants
from alexnet_tf.tfrecords import program, schema
from alexnet_tf.visualization import architecture

COLUMNS = (
    "layer",
    "kernel",
    "stride",
    "padding",
    "sees",
    "output",
    "parameters",
    "multiply-adds",
    "device",
    "settings",
)


@functools.lru_cache(maxsize=2)
def _built(variant, num_classes):
    gc.collect()  # networks dropped from the cache hold themselves in cycles, with their 244 MB each
    return model.build_alexnet(variant, num_classes, initializer="zeros")


def multiply_adds(layer):
    """Multiplications and additions of a layer with weights for one image: one for each weight of a kernel at each
    place where the kernel is applied."""
    shape = layer.output.shape
    places = math.prod(shape[1:-1])
    return sum(places * math.prod(w.shape) for w in layer.trainable_weights if len(w.shape) > 1)


def parameters(layer):
    """Trainable numbers of a layer."""
    return sum(math.prod(weight.shape) for weight in layer.trainable_weights)


def neurons(network):
    """Units that compute something from weights: the outputs of all convolutional and fully-connected layers."""
    return sum(math.prod(layer.output.shape[1:]) for layer in network.layers if multiply_adds(layer))


def table(variant, num_classes=1000):
    """One line for each layer of a variant: a list of tuples of strings, in the order of `COLUMNS`.

    The device is the column's: 1 and 2 are the paper's two GPUs.
    """
    row = variants.VARIANTS[variant]
    lines = []
    for layer in _built(variant, num_classes).layers:
        on_both = row.columns > 1 and not row.columns_merged and layer.name not in (row.fc_names[-1], "softmax")
        line = dict.fromkeys(COLUMNS, "") | {
            "layer": layer.name,
            "output": " x ".join(map(str, layer.output.shape[1:])),
            "device": "1, 2" if on_both else "1",
        }
        if layer.name in row.conv_names:
            index = row.conv_names.index(layer.name)
            line |= _weights(layer, row, row.conv_sees[index], row.conv_std[index], row.conv_bias[index])
            line["kernel"] = _square(row.conv_px[index])
            line["stride"] = str(row.conv_strides[index])
            line["padding"] = _padding(layer.padding, row.conv_px[index])
            if index == 0:
                line["sees"] = "the image"
        elif layer.name in row.fc_names:
            index = row.fc_names.index(layer.name)
            line |= _weights(layer, row, row.fc_sees[index], row.fc_std[index], row.fc_bias[index])
        else:
            line |= _settings(layer, row)
        lines.append(tuple(line.values()))
    return lines


def _weights(layer, row, sees, std, bias):
    """Columns of a convolutional or fully-connected layer."""
    first = f"std {std}, {'no bias' if bias is None else f'bias {bias:g}'}"
    return {
        "sees": _sees(row, sees),
        "parameters": f"{parameters(layer):,}",
        "multiply-adds": f"{multiply_adds(layer):,}",
        "settings": "weights and biases uniform in ±1/√inputs" if std is None else first,
    }


def _sees(row, sees):
    return "all" if row.columns == 1 else {"own": "own column", "all": "both columns"}[sees]


def _square(side):
    return f"{side} x {side}"


def _padding(padding, side):
    if padding == "valid":
        return "0"
    if padding == "same":
        return str(side // 2)
    (top, bottom), (left, right) = padding
    return str(top) if top == bottom == left == right else f"top {top}, bottom {bottom}, left {left}, right {right}"


def _settings(layer, row):
    """Columns of a layer without a row of its own in the table of variants."""
    if isinstance(layer, layers.MeanImage):
        scale = row.input_scale
        scale = (
            ""
            if scale == 1
            else f", / {1 / scale:g}"
            if isinstance(scale, float)
            else (", / (" + ", ".join(f"{1 / value:.5g}" for value in scale) + ")")
        )
        subtracted = {"image": "mean image", "color": "mean color"}[row.mean]
        noise = "" if row.noise_divisor == 1 else f", / {row.noise_divisor:g} with color noise"
        return {"settings": f"- {subtracted}{scale}{noise}"}
    if isinstance(layer, layers.LocalResponseNormalization):
        divided = " / n" if layer.alpha_divided_by_n else ""
        return {
            "sees": _sees(row, row.lrn_sees),
            "settings": f"LRN: k {layer.k:g}, n {layer.n}, alpha {layer.alpha:g}{divided}, beta {layer.beta:g}",
        }
    if isinstance(layer, layers.WithinMapNormalization):
        return {
            "kernel": _square(layer.n),
            "settings": f"k {layer.k:g}, alpha {layer.alpha:g} / n², beta {layer.beta:g}",
        }
    if isinstance(layer, keras.layers.BatchNormalization):
        return {
            "parameters": f"{parameters(layer):,}",
            "settings": f"momentum {layer.momentum:g}, epsilon {layer.epsilon:g}",
        }
    if isinstance(layer, keras.layers.MaxPooling2D):
        edge = "0" if row.pool_padding == "valid" else "right and bottom edge"
        return {"kernel": _square(row.pool_px), "stride": str(row.pool_stride), "padding": edge}
    if isinstance(layer, layers.PaperDropout):
        return {"settings": f"rate {layer.rate:g}; at test time x {1 - layer.rate:g}"}
    if isinstance(layer, layers.ReplicaDropout):
        return {"settings": f"rate {layer.rate:g}; in training / {1 - layer.rate:g}"}
    return {}


def totals(variant, num_classes=1000):
    """Sentences about the whole of a variant, beside the paper's claims."""
    network = _built(variant, num_classes)
    lines = [
        f"{variant}: {variants.VARIANTS[variant].title}.",
        f"Source: {variants.VARIANTS[variant].source}.",
        f"Parameters: {sum(map(parameters, network.layers)):,}. The paper says 60 million.",
        f"Neurons: {neurons(network):,}. The paper says 650,000.",
        f"Multiply-adds for one image: {sum(map(multiply_adds, network.layers)):,}.",
    ]
    if variant == "paper":
        lines[3] += (
            " Its figure 2 counts 253,440 in conv1, which is 55 x 48 x 96; 55 x 55 x 96 is 290,400. With the former "
            "all are 622,312."
        )
    return lines


def difference(variant, against, num_classes=1000):
    """The lines in which two variants differ: tuples of strings, the variant's name first."""
    old, new = table(against, num_classes), table(variant, num_classes)
    lines = []
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            lines += [(against, *line) for line in old[i1:i2]] + [(variant, *line) for line in new[j1:j2]]
    return lines


def overview():
    """One line for each variant: name, what it is, image side, kernels, parameters and millions of multiply-adds."""
    lines = []
    for name, row in variants.VARIANTS.items():
        network = _built(name, 1000)
        count, work = (sum(map(measure, network.layers)) for measure in (parameters, multiply_adds))
        kernels = "-".join(map(str, row.conv_kernels))
        lines.append((name, row.title, str(row.image_px), kernels, f"{count:,}", f"{work / 1e6:.1f} M"))
    return lines


def describe(variant=None, against=None, num_classes=1000, markdown=False):
    """The text that alexnet-describe prints.

    Args:
        variant: a key of `variants.VARIANTS`, or None for a list of all.
        against: None, or another key: then only what differs.
        num_classes: number of classes.
        markdown: whether tables are Markdown's.

    Raises:
        ValueError: where a variant does not exist, or there is nothing to hold `against`.
    """
    for name, value in (("variant", variant), ("against", against)):
        if value is not None and value not in variants.VARIANTS:
            raise ValueError(f"`{name}` must be one of {sorted(variants.VARIANTS)}. Received: {name}={value!r}")
    if variant is None:
        if against is not None:
            raise ValueError(f"`against` needs a `variant` to hold against it. Received: against={against!r}")
        return _format(
            ("variant", "what it is", "image", "kernels", "parameters", "multiply-adds"), overview(), markdown
        )
    sentences = ("\n\n" if markdown else "\n").join(totals(variant, num_classes))
    if against is None:
        return f"{_format(COLUMNS, table(variant, num_classes), markdown)}\n{sentences}\n"
    lines = difference(variant, against, num_classes)
    if not lines:
        return f"{variant} and {against} do not differ.\n"
    return f"{_format(('variant', *COLUMNS), lines, markdown)}\n{sentences}\n"


def _format(head, lines, markdown):
    if markdown:
        rows = [head, ["---"] * len(head), *lines]
        return "".join("| " + " | ".join(row) + " |\n" for row in rows)
    widths = [max(len(row[column]) for row in [head, *lines]) for column in range(len(head))]
    used = [column for column in range(len(head)) if any(line[column] for line in lines)]
    return "".join("  ".join(row[c].ljust(widths[c]) for c in used).rstrip() + "\n" for row in [head, *lines])


def fill_in(text):
    """A Markdown text with its tables made anew: each stands between two lines, `<!-- alexnet-describe FLAGS -->` and
    `<!-- end -->`."""

    def fresh(match):
        given = dict(flag.lstrip("-").split("=", 1) for flag in shlex.split(match[1]))
        return f"<!-- alexnet-describe{match[1]} -->\n{describe(**given, markdown=True)}<!-- end -->"

    return re.sub(r"<!-- alexnet-describe(.*?) -->\n.*?<!-- end -->", fresh, text, flags=re.DOTALL)


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    names = sorted(variants.VARIANTS)
    flags.DEFINE_enum("variant", None, names, "Which network to print; without it, a list of all.")
    flags.DEFINE_enum("against", None, names, "Print only what differs from this one.")
    flags.DEFINE_integer("num_classes", 1000, "Number of classes.", lower_bound=2)
    flags.DEFINE_enum("format", "text", ["text", "markdown"], "How tables are written.")
    flags.DEFINE_string("picture", None, "A .svg or .png file for the variant's picture, in the manner of figure 2.")
    program.define_overwrite()
    flags.DEFINE_string("fill_in", None, "A Markdown file whose tables are made anew in place, as docs/variants.md's.")


def main(arguments):
    flag = flags.FLAGS
    if flag.fill_in:
        text = fill_in(pathlib.Path(flag.fill_in).read_text(encoding="utf-8"))
        schema.write_whole(pathlib.Path(flag.fill_in), lambda file: file.write(text.encode()))
    elif flag.picture:
        program.check_outputs("picture", [flag.picture], flag.overwrite)
        architecture.save_architecture(flag.picture, flag.variant or "paper", flag.num_classes)
        print(f"Written: {flag.picture}")
    else:
        print(describe(flag.variant, flag.against, flag.num_classes, flag.format == "markdown"), end="")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
