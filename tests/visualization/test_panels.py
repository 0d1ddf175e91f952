"""The panels of figure 4."""

import numpy as np

from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import reader
from alexnet_tf.visualization import panels


class TestDrawPredictions:
    def test_panel_shows_the_true_class_of_each_image(self, run_dir, data_dir, monkeypatch):
        model, description = load_model(run_dir)
        drawn = {}
        monkeypatch.setattr(panels.image_grids, "prediction_panel", lambda *args: drawn.update(args=args))
        panels.draw_predictions(model, data_dir, description, count=3)
        images, predicted, titles = drawn["args"]
        labels = reader.read_labels(data_dir, description, "validation")[[0, 500, 999]]  # 499.5 rounds to even
        assert titles == [description.class_names[label] for label in labels]
        assert images.shape[0] == len(predicted) == 3
        assert all(np.all(np.diff(probabilities) <= 0) for _, probabilities in predicted)
