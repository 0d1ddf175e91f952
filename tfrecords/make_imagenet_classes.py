"""Makes the list of ImageNet's 1,000 classes in this package from WordNet 3.0.

python -m alexnet_tf.tfrecords.make_imagenet_classes DATA_NOUN OUTPUT_FILE

DATA_NOUN is data.noun of WordNet 3.0, from Debian's package wordnet-base. A class id such as n01440764 is the offset of
a synset in that file. The list of ids is part of TensorFlow Datasets.
"""

import pathlib
import sys

import tensorflow_datasets as tfds


def make_classes(data_noun: str | pathlib.Path, output_file: str | pathlib.Path) -> None:
    """Writes a line per class, sorted by id: "n01440764 tench, Tinca tinca"."""
    words = {}
    for line in pathlib.Path(data_noun).read_text(encoding="ascii").splitlines():
        if line[:8].isdigit():  # lines of the license begin with blanks
            offset, _, _, count, *fields = line.split(" ")  # each word is followed by its sense number
            words[f"n{offset}"] = [word.replace("_", " ") for word in fields[: 2 * int(count, 16) : 2]]
    ids = sorted(tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split())
    text = "".join(f"{class_id} {', '.join(words[class_id])}\n" for class_id in ids)
    pathlib.Path(output_file).write_text(text, encoding="ascii")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_classes(*sys.argv[1:])
