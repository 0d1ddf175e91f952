"""What is saved, and what is not."""

import keras
import numpy as np
import pytest

from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.training import checkpoints, compilation
from alexnet_tf.training.optimizers import PaperMomentum


class TestSave:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite_are_not_saved(self, value, tmp_path):
        alexnet = build_alexnet("testing", 3)
        training_model = with_color_offset(alexnet)
        compilation.compile_model(training_model, PaperMomentum(), jit=False)
        checkpoints.save(tmp_path, alexnet, training_model, {"step": 5})
        kernel = alexnet.get_layer("fc6").kernels[1]
        kernel.assign(np.where(np.arange(32 * 2)[:, None] == 7, value, kernel))
        with pytest.raises(FloatingPointError, match="After step 6 fc6/kernel_2 is not finite"):
            checkpoints.save(tmp_path, alexnet, training_model, {"step": 6})
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000005"]
        published = keras.models.load_model(tmp_path / "model.keras")
        assert np.isfinite(published.get_layer("fc6").kernels[1]).all()
