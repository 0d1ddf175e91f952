"""Describes a variant as a table, the differences between two, all variants, or the content of a weights file.

Examples:

    alexnet-describe --variant=paper
    alexnet-describe --variant=caffe --against=paper
    alexnet-describe --weights                          # published weights
    alexnet-describe alexnet-owt-7be5be79.pth
"""

import pathlib

from absl import flags

from alexnet_tf import cli
from alexnet_tf.files import write_text
from alexnet_tf.networks import layer_table
from alexnet_tf.networks.variants import VARIANTS


def define_flags():
    """Defines the flags. At import, the flags of two programs would collide."""
    names = sorted(VARIANTS)
    flags.DEFINE_enum("variant", None, names, "Network to describe; by default, list all.")
    flags.DEFINE_enum("against", None, names, "Print only the differences from this network.")
    flags.DEFINE_integer("num_classes", 1000, "Number of classes.", lower_bound=2)
    flags.DEFINE_enum("format", "text", ["text", "markdown"], "Format of tables.")
    flags.DEFINE_string("picture", None, "Write a picture in the style of figure 2 to this .svg or .png file.")
    flags.DEFINE_bool("weights", False, "List the published weights, and which are in the cache.")
    cli.define_overwrite()
    flags.DEFINE_string("fill_in", None, "Update the tables in this Markdown file.")


def main(arguments):
    flag = flags.FLAGS
    if arguments:
        cli.check_exists(*arguments)
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
