"""A data set whose images say which they are, and where each of their pixels is from."""

import numpy as np
from made_photos import save_image

from alexnet_tf.tfrecords import dataset_builder


def numbered_image(number, side):
    """Red is proportional to the row, green to the column, and blue is the image's number."""
    rows, columns = 255 // side * np.mgrid[:side, :side]
    return np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype("uint8")


def build_numbered(root, side, num_train_shards):
    """Writes `root`/data, as PNG: 46 images for training, 0 to 45; 10 for validation, 100 to 109; 2 classes."""
    for split, numbers in (("train", range(46)), ("validation", range(100, 110))):
        for number in numbers:
            path = root / "images" / split / ("even", "odd")[number % 2] / f"{number}.png"
            save_image(path, numbered_image(number, side))
    counts = {"num_train_shards": num_train_shards, "num_validation_shards": 2, "num_processes": 1}
    dataset_builder.build_dataset(f"folder:{root / 'images'}", root / "data", image_px=side, encoding="png", **counts)
    return root / "data"
