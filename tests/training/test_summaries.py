"""What is logged of a run besides its scalars."""

import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.training import summaries


def test_augmented_inputs_have_their_color_noise_within_the_range_of_pixels():
    images = np.full((3, 2, 2, 3), 100, "uint8")
    offsets = np.array([[0, 10.4, -10.6], [200, 0, -200], [1, 1, 1]], "float32")
    dataset = tf.data.Dataset.from_tensors(({"image": images, "color_offset": offsets}, [0, 1, 2]))
    shown = summaries.augmented_inputs(dataset, 2)
    assert shown.dtype == np.uint8 and shown.shape == (2, 2, 2, 3)
    assert shown[:, 0, 0].tolist() == shown[:, 1, 1].tolist() == [[100, 110, 89], [255, 100, 0]]


def test_means_are_those_of_the_batches_since_the_entry_before():
    losses = np.array([4.0, 2.0, 3.0, 1.0, 5.0])
    so_far = {number: {"loss": losses[:number].mean()} for number in (2, 5)}
    assert summaries.means_since(so_far[2], 2, {}, 0) == {"loss": 3.0}
    assert summaries.means_since(so_far[5], 5, so_far[2], 2) == {"loss": pytest.approx(3.0)}
    assert summaries.means_since(so_far[5], 5, {"loss": 4.0}, 1) == {"loss": pytest.approx(11 / 4)}


def test_last_row_of_a_sheet_is_filled_with_black():
    images = np.arange(1, 6, dtype="uint8").repeat(12).reshape(5, 2, 2, 3)
    sheet = summaries.image_sheet(images, columns=3)
    assert sheet[::2, ::2, 0].tolist() == [[1, 2, 3], [4, 5, 0]]
