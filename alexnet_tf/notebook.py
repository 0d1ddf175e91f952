"""What a notebook calls: images in, names out, and data sets that `model.fit` takes as they are."""

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import images as image_files
from alexnet_tf.tfrecords import reader


def preprocess(images, crop_px=224, image_px=256):
    """Brings images to the network's size: as those of a data set are built, and then the centre crop.

    The mean is not subtracted here: that is the network's first layer.

    Args:
        images: one image or a list of them, of any sizes: paths, bytes of encoded files, or uint8 arrays (rows,
            columns) or (rows, columns, 3).
        crop_px: side of the network's input, in pixels.
        image_px: what the shorter side is brought to first, in pixels.

    Returns: uint8 (n, crop_px, crop_px, 3), RGB.

    Raises:
        ValueError: where `crop_px` is larger than `image_px`, or an image can't be read.

    Source: section 2.
    """
    if not 1 <= crop_px <= image_px:
        raise ValueError(f"`crop_px` must be from 1 to the image side, {image_px}. Received: crop_px={crop_px}")
    if not isinstance(images, list | tuple) and np.ndim(images) != 4:
        images = [images]
    margin = (image_px - crop_px) // 2
    crops = []
    for number, image in enumerate(images):
        try:
            square = image_files.prepare_image(image, image_px)
        except Exception as error:  # Pillow's are of many kinds
            received = image if isinstance(image, str) else type(image).__name__
            raise ValueError(
                f"`images` must be images that Pillow can read. Received at {number}: {received}: {error}"
            ) from error
        crops.append(square[margin : margin + crop_px, margin : margin + crop_px])
    return np.stack(crops)


def decode_predictions(probabilities, class_names, top=5):
    """Names the most probable classes.

    Args:
        probabilities: float (n, classes), what a model predicts.
        class_names: names in the order of the labels: `load_model(...)[1].class_names`.
        top: how many; all where there are fewer.

    Returns: for each image a list of (name, probability), the most probable first.

    Raises:
        ValueError: where there are not as many names as classes.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"`probabilities` must be (n, {len(class_names)}), as many as names. Received: {probabilities.shape}"
        )
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [[(class_names[c], float(row[c])) for c in best] for row, best in zip(probabilities, order, strict=True)]


def make_dataset(data_dir, split="train", batch_size=128, crop_px=224, *, seed=0, views=1):
    """Makes a data set that `model.fit`, `model.evaluate` and a `for` take as it is.

    Args:
        data_dir: folder of TFRecords made by alexnet-tfrecords.
        split: "train": endless, in random order, with random crops, flips and color noise; pass `steps_per_epoch` to
            `fit`. "validation": the centre crop of each image once, in the order of the files.
        batch_size: images in a batch.
        crop_px: side of the network's input, in pixels.
        seed: of all that is random.
        views: 10 for the paper's ten views of each validation image.

    Returns: a `tf.data.Dataset` of (images, int32 labels (batch,)). Images are RGB from 0 to 255, (batch, crop_px,
    crop_px, 3): float32 for training, where color noise may lead past these bounds, else uint8; ten views are (batch,
    10, crop_px, crop_px, 3).

    Raises:
        ValueError: where an argument is out of its range, or the data set is missing or damaged.

    Source: section 4.1. alexnet-train adds the noise on the device instead, which is faster.
    """
    if split == "train" and views == 1:
        dataset = reader.make_training_dataset(data_dir, batch_size, crop_px, seed=seed)

        def add_noise(inputs, labels):
            return tf.cast(inputs["image"], tf.float32) + inputs["color_offset"][:, None, None, :], labels

        return dataset.map(add_noise).prefetch(2)
    return reader.make_evaluation_dataset(data_dir, batch_size, crop_px, split=split, views=views)
