"""Makes the sample of Fashion-MNIST in this package from the complete data set.

python -m alexnet_tf.tfrecords.make_fashion_mnist_sample SOURCE_FOLDER OUTPUT_FOLDER
"""

import gzip
import pathlib
import sys

import numpy as np

from alexnet_tf.tfrecords import sources

# For each of the ten classes. 4,000 images take 2 MB.
_IMAGES_PER_CLASS = {"train": 300, "validation": 100}


def make_sample(source_folder: str | pathlib.Path, output_folder: str | pathlib.Path) -> None:
    """Writes four gzipped IDX files with the first images of each class, in their original order."""
    source = sources.open_source(f"fashion_mnist:{source_folder}")
    output_folder = pathlib.Path(output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("validation", "t10k")):
        taken = dict.fromkeys(range(len(source.class_names)), 0)
        images, labels = [], []
        for _, image, label in source.read(split, 0, source.count(split)):
            if taken[label] < _IMAGES_PER_CLASS[split]:
                taken[label] += 1
                images.append(image)
                labels.append(label)
        for kind, array in (("images-idx3", np.array(images, "uint8")), ("labels-idx1", np.array(labels, "uint8"))):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            # Without a time stamp, the same images give the same bytes.
            packed = gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0)
            (output_folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(packed)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_sample(*sys.argv[1:])
