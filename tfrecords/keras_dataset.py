"""A dataset for Keras: `model.fit`, `model.evaluate` and loops take it as it is."""

import pathlib

import tensorflow as tf

from alexnet_tf.tfrecords import reader


def make_dataset(
    data_dir: str | pathlib.Path,
    split: str = "train",
    batch_size: int = 128,
    crop_px: int = 224,
    *,
    seed: int = 0,
    views: int = 1,
) -> tf.data.Dataset:
    """Makes a dataset that `model.fit`, `model.evaluate` and `for` loops take as it is.

    Args:
        data_dir: folder of a data set made by alexnet-tfrecords.
        split: "train" for endless batches in random order with random crops, flips and color noise (pass
            `steps_per_epoch` to `fit`); "validation" for the center crop of each image once, in the order of the files.
        batch_size: images in a batch.
        crop_px: side of the network's input, in pixels.
        seed: seed of all random choices.
        views: 10 for the paper's ten views of each image, in the order of the files.

    Returns: a `tf.data.Dataset` of (images, int32 labels (batch,)). Images are RGB from 0 to 255, (batch, crop_px,
    crop_px, 3): float32 for training, where color noise may exceed this range, otherwise uint8. Ten views are (batch,
    10, crop_px, crop_px, 3).

    Raises:
        ValueError: if an argument is out of range, or the data set is missing or damaged.

    Source: section 4.1. (alexnet-train adds the noise on the device, which is faster.)

    Example:

    >>> dataset = alexnet_tf.make_dataset("data/photos", "train", batch_size=8, crop_px=32)
    >>> images, labels = next(iter(dataset))
    >>> images.shape, labels.shape
    (TensorShape([8, 32, 32, 3]), TensorShape([8]))
    """
    if split == "train" and views == 1:
        dataset = reader.make_training_dataset(data_dir, batch_size, crop_px, seed=seed)
        return dataset.map(_add_noise).prefetch(2)
    return reader.make_evaluation_dataset(data_dir, batch_size, crop_px, split=split, views=views)


def _add_noise(inputs, labels):
    return tf.cast(inputs["image"], tf.float32) + inputs["color_offset"][:, None, None, :], labels
