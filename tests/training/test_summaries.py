"""What is logged of a run besides its scalars."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins import projector

from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import structure
from alexnet_tf.training import summaries


def test_augmented_inputs_have_their_color_noise_within_the_range_of_pixels():
    images = np.full((3, 2, 2, 3), 100, "uint8")
    offsets = np.array([[0, 10.4, -10.6], [200, 0, -200], [1, 1, 1]], "float32")
    dataset = tf.data.Dataset.from_tensors(({"image": images, "color_offset": offsets}, [0, 1, 2]))
    shown = summaries.augmented_inputs(dataset, 2)
    assert shown.dtype == np.uint8 and shown.shape == (2, 2, 2, 3)
    assert shown[:, 0, 0].tolist() == shown[:, 1, 1].tolist() == [[100, 110, 89], [255, 100, 0]]


def test_means_are_those_of_the_batches_since_the_log_point_before():
    losses = np.array([4.0, 2.0, 3.0, 1.0, 5.0])
    so_far = {number: {"loss": losses[:number].mean()} for number in (2, 5)}
    assert summaries.means_since(so_far[2], 2, {}, 0) == {"loss": 3.0}
    assert summaries.means_since(so_far[5], 5, so_far[2], 2) == {"loss": pytest.approx(3.0)}
    assert summaries.means_since(so_far[5], 5, {"loss": 4.0}, 1) == {"loss": pytest.approx(11 / 4)}


def test_projector_has_the_first_images_with_their_features_and_classes(tmp_path):
    keras.utils.set_random_seed(0)
    model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.01)
    images = np.random.default_rng(0).integers(0, 256, (9, 56, 56, 3)).astype("uint8")
    labels = np.arange(9) % 3
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    summaries.write_projector(tmp_path, model, dataset, ("a", "two\nlines", "c\td"), max_images=6)
    config = projector.ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    vectors = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    # fc8's input: at test time dropout multiplies by one half.
    hidden = structure.features(model, ["relu7"])(images[:6])["relu7"]
    np.testing.assert_allclose(vectors, 0.5 * np.asarray(hidden), rtol=1e-3, atol=1e-6)
    names = np.array(["a", "two lines", "c d"])
    predicted = names[np.asarray(model(images[:6])).argmax(axis=1)]
    expected = [f"{name}\t{other}" for name, other in zip(names[labels[:6]], predicted, strict=True)]
    assert (tmp_path / embedding.metadata_path).read_text().splitlines() == ["class\tpredicted class", *expected]
    with Image.open(tmp_path / embedding.sprite.image_path) as sprite:
        thumbnail = np.asarray(Image.fromarray(images[1]).resize((48, 48)))
        np.testing.assert_array_equal(np.asarray(sprite)[:48, 48:96], thumbnail)
