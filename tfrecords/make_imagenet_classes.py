"""Makes the list of ImageNet's 1,000 classes that this package contains from WordNet 3.0.

python -m alexnet_tf.tfrecords.make_imagenet_classes DATA_NOUN OUTPUT_FILE

DATA_NOUN is the data.noun of WordNet 3.0, in Debian's package wordnet-base. The id of a class, such as n01440764, is
the offset of its synset in that file. The ids come with TensorFlow Datasets.
"""

import pathlib
import sys

import tensorflow_datasets as tfds


def make_classes(data_noun: str | pathlib.Path, output_file: str | pathlib.Path) -> None:
    """Writes a line per class, sorted by id: "n01440764 tench, Tinca tinca"."""
    words = {}
    for line in pathlib.Path(data_noun).read_text(encoding="ascii").splitlines():
        if line[:8].isdigit():  # and not the license, whose lines begin with blanks
            offset, _, _, count, *fields = line.split(" ")  # words are followed by numbers of their senses
            words[f"n{offset}"] = [word.replace("_", " ") for word in fields[: 2 * int(count, 16) : 2]]
    ids = sorted(tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split())
    text = "".join(f"{class_id} {', '.join(words[class_id])}\n" for class_id in ids)
    pathlib.Path(output_file).write_text(text, encoding="ascii")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_classes(*sys.argv[1:])
