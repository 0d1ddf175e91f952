"""Describes a variant as a table, the differences between two, and the list of all. Does not import TensorFlow."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from typing import Any

from alexnet_tf.networks import rows
from alexnet_tf.networks.rows import LayerShape, Variant
from alexnet_tf.networks.variants import VARIANTS, find_variant

COLUMNS = (
    "layer",
    "kernel",
    "stride",
    "padding",
    "input",
    "output",
    "parameters",
    "multiply-adds",
    "device",
    "settings",
)


def table(variant: str, num_classes: int = 1000) -> list[tuple[str, ...]]:
    """Returns one line per layer of a variant, a tuple of strings in the order of `COLUMNS`.

    Devices 1 and 2 are the paper's two GPUs.
    """
    spec = VARIANTS[variant]
    shapes = list(rows.trace(spec, num_classes))
    on_both = "1, 2" if spec.columns > 1 and not spec.columns_merged else "1"
    image = (spec.image_px, spec.image_px, 3)
    lines = [
        _line("image", image, on_both),
        _line("mean_image", image, on_both, settings=_mean_image_settings(spec)),
    ]
    for shape in shapes:
        device = "1" if shape in shapes[-2:] else on_both  # the classifier and its softmax
        cells = _cells(shape, spec)
        if shape is shapes[0]:
            cells["input"] = "the image"
        lines.append(_line(shape.name, shape.output_shape, device, **cells))
    return lines


def _line(name: str, output_shape: tuple[int, ...], device: str, **cells: str) -> tuple[str, ...]:
    output = " x ".join(map(str, output_shape))
    line = dict.fromkeys(COLUMNS, "") | {"layer": name, "output": output, "device": device} | cells
    return tuple(line[column] for column in COLUMNS)


def _cells(shape: LayerShape, spec: Variant) -> dict[str, str]:
    """Returns the cells of a layer by the names of their columns."""
    row = shape.row
    match row:
        case rows.Conv():
            window = {"kernel": _square(row.kernel_size), "stride": str(row.strides), "padding": _padding(row)}
            return window | _weights(shape, spec)
        case rows.Local():
            window = {"kernel": _square(row.kernel_size), "stride": "1", "padding": str(row.kernel_size // 2)}
            return window | _weights(shape, spec)
        case rows.Dense():
            return _weights(shape, spec)
        case rows.LRN():
            divided = " / n" if row.alpha_divided_by_n else ""
            return {
                "input": _input(spec, row.input_columns),
                "settings": f"LRN: k {row.k:g}, n {row.n}, alpha {row.alpha:g}{divided}, beta {row.beta:g}",
            }
        case rows.WithinMapNorm():
            settings = f"k {row.k:g}, alpha {row.alpha:g} / n², beta {row.beta:g}"
            return {"kernel": _square(row.n), "settings": settings}
        case rows.BatchNorm():
            settings = f"momentum {row.momentum:g}, epsilon {row.epsilon:g}"
            unscaled = "" if row.scaled else ", no scale or shift"
            return {"parameters": f"{shape.parameters:,}", "settings": settings + unscaled}
        case rows.MaxPool():
            edge = "0" if row.padding == "valid" else "right and bottom edge"
            return {"kernel": _square(row.pool_size), "stride": str(row.strides), "padding": edge}
        case rows.Dropout(rescaled=True):
            return {"settings": f"rate {row.rate:g}; in training / {1 - row.rate:g}"}
        case rows.Dropout():
            return {"settings": f"rate {row.rate:g}; at test time x {1 - row.rate:g}"}
    return {}


def _weights(shape: LayerShape, spec: Variant) -> dict[str, str]:
    row: Any = shape.row
    settings = f"std {row.std}, {'no bias' if row.bias is None else f'bias {row.bias:g}'}"
    return {
        "input": _input(spec, row.input_columns),
        "parameters": f"{shape.parameters:,}",
        "multiply-adds": f"{shape.multiply_adds:,}",
        "settings": "weights and biases uniform in ±1/√inputs" if row.std is None else settings,
    }


def _input(spec: Variant, input_columns: str) -> str:
    return "all" if spec.columns == 1 else {"own": "own column", "all": "both columns"}[input_columns]


def _square(side: int) -> str:
    return f"{side} x {side}"


def _padding(row: rows.Conv) -> str:
    if row.padding == "valid":
        return "0"
    if row.padding == "same":
        return str(row.kernel_size // 2)
    (top, bottom), (left, right) = row.padding
    return str(top) if top == bottom == left == right else f"top {top}, bottom {bottom}, left {left}, right {right}"


def _mean_image_settings(spec: Variant) -> str:
    scale = ""
    if isinstance(spec.input_scale, tuple):
        scale = ", / (" + ", ".join(f"{1 / value:.5g}" for value in spec.input_scale) + ")"
    elif spec.input_scale != 1:
        scale = f", / {1 / spec.input_scale:g}"
    noise = "" if spec.noise_divisor == 1 else f", / {spec.noise_divisor:g} with color noise"
    return f"- mean {spec.mean}{scale}{noise}"


def totals(variant: str, num_classes: int = 1000) -> list[str]:
    """Returns sentences about a variant as a whole, compared with the paper."""
    spec = VARIANTS[variant]
    shapes = list(rows.trace(spec, num_classes))
    neurons = sum(math.prod(shape.output_shape) for shape in shapes if shape.multiply_adds)
    lines = [
        f"{variant}: {spec.title}.",
        f"Source: {spec.source}.",
        f"Parameters: {sum(shape.parameters for shape in shapes):,}. The paper says 60 million.",
        f"Neurons: {neurons:,}. The paper says 650,000.",
        f"Multiply-adds for one image: {sum(shape.multiply_adds for shape in shapes):,}.",
    ]
    if variant == "paper":
        lines[3] += (
            " Its figure 2 counts 253,440 in conv1, which is 55 x 48 x 96; 55 x 55 x 96 is 290,400. With 253,440 the "
            "total is 622,312."
        )
    return lines


def difference(variant: str, against: str, num_classes: int = 1000) -> list[tuple[str, ...]]:
    """Returns the lines in which two variants differ: tuples of strings that begin with the variant's name."""
    old, new = table(against, num_classes), table(variant, num_classes)
    lines = []
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            lines += [(against, *line) for line in old[i1:i2]] + [(variant, *line) for line in new[j1:j2]]
    return lines


def overview() -> list[tuple[str, ...]]:
    """Returns one line per variant: name, title, image side, kernels, parameters and millions of multiply-adds."""
    lines = []
    for name, spec in VARIANTS.items():
        shapes = list(rows.trace(spec, 1000))
        parameters, work = sum(s.parameters for s in shapes), sum(s.multiply_adds for s in shapes)
        kernels = "-".join(str(conv.filters) for conv in spec.layers if isinstance(conv, rows.Conv | rows.Local))
        lines.append((name, spec.title, str(spec.image_px), kernels, f"{parameters:,}", f"{work / 1e6:.1f} M"))
    return lines


def describe(
    variant: str | None = None, against: str | None = None, num_classes: int = 1000, markdown: bool = False
) -> str:
    """Returns the text that alexnet-describe prints.

    Args:
        variant: a key of `VARIANTS`, or None for a list of all.
        against: None, or another key, to list only the differences.
        num_classes: number of classes.
        markdown: whether to write tables in Markdown.

    Raises:
        ValueError: if a variant does not exist, or `against` is given without `variant`.
    """
    if variant is None:
        if against is not None:
            raise ValueError(f"`against` needs a `variant` to compare. Received: against={against!r}")
        head = ("variant", "what it is", "image", "kernels", "parameters", "multiply-adds")
        return _format(head, overview(), markdown)
    find_variant(variant)
    find_variant(against or variant, "against")
    sentences = ("\n\n" if markdown else "\n").join(totals(variant, num_classes))
    if against is None:
        return f"{_format(COLUMNS, table(variant, num_classes), markdown)}\n{sentences}\n"
    lines = difference(variant, against, num_classes)
    if not lines:
        return f"{variant} and {against} do not differ.\n"
    return f"{_format(('variant', *COLUMNS), lines, markdown)}\n{sentences}\n"


def _format(head: tuple[str, ...], lines: list[tuple[str, ...]], markdown: bool) -> str:
    if markdown:
        return "".join("| " + " | ".join(line) + " |\n" for line in [head, ["---"] * len(head), *lines])
    widths = [max(len(row[column]) for row in [head, *lines]) for column in range(len(head))]
    used = [column for column in range(len(head)) if any(line[column] for line in lines)]
    return "".join("  ".join(row[c].ljust(widths[c]) for c in used).rstrip() + "\n" for row in [head, *lines])


def escape(text: object) -> str:
    """Escapes a name for a Markdown table: "|", "<", "&" and line ends."""
    return " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def fill_in(text: str) -> str:
    """Updates the tables of a Markdown text: each is between the lines `<!-- alexnet-describe FLAGS -->` and
    `<!-- end -->`."""

    def fresh(match):
        given: dict[str, Any] = dict(flag.lstrip("-").split("=", 1) for flag in shlex.split(match[1]))
        if "num_classes" in given:
            given["num_classes"] = int(given["num_classes"])
        return f"<!-- alexnet-describe{match[1]} -->\n{describe(**given, markdown=True)}<!-- end -->"

    return re.sub(r"<!-- alexnet-describe(.*?) -->\n.*?<!-- end -->", fresh, text, flags=re.DOTALL)
