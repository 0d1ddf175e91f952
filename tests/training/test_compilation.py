"""A network made ready to train."""

import numpy as np
import pytest

from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.training import compilation
from alexnet_tf.training.optimizers import PaperMomentum


class TestCompileModel:
    def test_label_smoothing_equals_its_formula(self):
        model = with_color_offset(build_alexnet("testing", 4, initializer="he_normal", input_scale=0.01))
        compilation.compile_model(model, PaperMomentum(), jit=False, label_smoothing=0.1)
        images = np.random.default_rng(0).integers(0, 256, (5, 56, 56, 3)).astype("uint8")
        labels = np.array([0, 1, 2, 3, 1], "int32")
        inputs = {"image": images, "color_offset": np.zeros((5, 3), "float32")}
        loss = model.evaluate(inputs, labels, verbose=0, return_dict=True)["loss"]
        wanted = 0.9 * np.eye(4)[labels] + 0.1 / 4
        expected = -np.mean(np.sum(wanted * np.log(np.float64(model.predict(inputs, verbose=0))), axis=1))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    @pytest.mark.parametrize("label_smoothing", [-0.1, 1.0])
    def test_label_smoothing_outside_its_range_is_refused(self, label_smoothing):
        with pytest.raises(ValueError, match=f"label_smoothing={label_smoothing}"):
            compilation.compile_model(None, None, jit=False, label_smoothing=label_smoothing)
