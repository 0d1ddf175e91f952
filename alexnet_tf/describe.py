"""Prints a variant as a table, what differs between two, which variants there are, or what a weights file holds."""

import pathlib

from absl import flags

from alexnet_tf import cli
from alexnet_tf.files import write_text
from alexnet_tf.networks import layer_table
from alexnet_tf.networks.variants import VARIANTS


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    names = sorted(VARIANTS)
    flags.DEFINE_enum("variant", None, names, "Which network to print; without it, a list of all.")
    flags.DEFINE_enum("against", None, names, "Print only what differs from this one.")
    flags.DEFINE_integer("num_classes", 1000, "Number of classes.", lower_bound=2)
    flags.DEFINE_enum("format", "text", ["text", "markdown"], "How tables are written.")
    flags.DEFINE_string("picture", None, "A .svg or .png file for a picture of the variant, drawn as figure 2 is.")
    flags.DEFINE_bool("weights", False, "List the published weights, and which of them are downloaded.")
    cli.define_overwrite()
    flags.DEFINE_string("fill_in", None, "A Markdown file whose tables are updated in place.")


def main(arguments):
    flag = flags.FLAGS
    if arguments:
        from alexnet_tf import identification  # imports TensorFlow

        print("\n".join(map(identification.describe_file, arguments)), end="")
    elif flag.fill_in:
        text = layer_table.fill_in(pathlib.Path(flag.fill_in).read_text(encoding="utf-8"))
        write_text(flag.fill_in, text)
    elif flag.weights:
        from alexnet_tf.weights import published

        print(published.describe())
    elif flag.picture:
        from alexnet_tf.figures import architecture  # imports matplotlib

        cli.check_outputs("picture", [flag.picture], flag.overwrite)
        architecture.save_architecture(flag.picture, flag.variant or "paper", flag.num_classes)
        print(f"Written: {flag.picture}")
    else:
        print(layer_table.describe(flag.variant, flag.against, flag.num_classes, flag.format == "markdown"), end="")


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "[WEIGHTS_FILE ...]")


if __name__ == "__main__":
    run()
