"""The images of a source; and batches of the tiny data set, whose images show where each pixel is from."""

import dataclasses
import itertools

import numpy as np

from alexnet_tf.tfrecords import reader
from alexnet_tf.tfrecords.augmentation import Augmentation

CROP_PX = 32


def read_all(source, split):
    return list(source.read(split, 0, source.count(split)))


def training_batches(data_dir, count, **arguments):
    """Batches of ten training images. The arguments are those of the reader and the fields of `Augmentation`."""
    names = {field.name for field in dataclasses.fields(Augmentation)}
    augmentation = Augmentation(**{name: arguments.pop(name) for name in names & arguments.keys()})
    dataset = reader.make_training_dataset(data_dir, 10, CROP_PX, augmentation=augmentation, **arguments)
    return [
        (inputs["image"].numpy(), inputs["color_offset"].numpy(), labels.numpy())
        for inputs, labels in itertools.islice(dataset, count)
    ]


def numbers_in(images):
    return images[:, 0, 0, 2].tolist()


def assert_equal_batches(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        for array, other_array in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, other_array)
