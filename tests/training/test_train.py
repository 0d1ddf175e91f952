"""alexnet-train on real images, on damaged data, fine-tuned, and with rates that make training fail."""

import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from alexnet_tf.figures import kernels
from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.tfrecords import dataset_builder, schema, sources
from alexnet_tf.training import callbacks, initial_kernels

HE = {"initializer": "he_normal", "input_scale": 0.0125}


@pytest.mark.slow
class TestProgram:
    def test_run_learns_and_leaves_its_files(self, run_dir):
        summary = json.loads((run_dir / "training.json").read_text())
        assert summary["val_top1_error"] < 0.8  # chance is 0.9
        assert summary["images_per_second"] > 0
        assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["00000116", "00000120"]
        assert json.loads((run_dir / "config.json").read_text())["learning_rate"] == 0.1
        assert schema.load_description(run_dir).class_names[9] == "Ankle boot"
        keras.utils.set_random_seed(3)
        initial = kernels.first_kernels(build_alexnet("testing", 10, **HE))
        np.testing.assert_array_equal(initial_kernels.load_initial_kernels(run_dir), initial)


@pytest.mark.usefixtures("without_pictures")
class TestFailingTraining:
    @pytest.mark.slow
    def test_loss_that_is_not_finite_stops_the_run(self, train_here, tmp_path):
        with pytest.raises(FloatingPointError, match="The loss of step"):
            train_here(tmp_path / "run", learning_rate=1e9, **HE)
        assert not (tmp_path / "run" / "model.keras").exists()

    def test_damaged_shard_is_named_and_stops_the_run(self, damaged_data_dir, train_here, tmp_path):
        shard = damaged_data_dir / "train-00001-of-00003"
        with pytest.raises(ValueError, match=f"The data set is damaged. {shard}, record .*--on_bad_record=skip"):
            train_here(tmp_path / "run", data_dir=str(damaged_data_dir), epochs=1)

    @pytest.mark.slow
    def test_skipped_records_phases_and_the_advice_at_the_end(
        self, damaged_data_dir, small_data_dir, train_here, tmp_path, capsys
    ):
        options = {"data_dir": str(damaged_data_dir), "on_bad_record": "skip", "schedule": "phases"}
        options |= {"learning_rate": 1e-6, "phase": ("1 weights=0.000001 biases=0.000002",)}
        train_here(tmp_path / "run", epochs=1, **options)
        output = capsys.readouterr().out
        assert "Trained to the end of epoch 1" in output
        assert "The network has learned nothing" in output and "recipes/demo.flags" in output
        assert json.loads((tmp_path / "run" / "training.json").read_text())["records_left_out"] == 1
        with np.load(tmp_path / "run" / "checkpoints" / "00000004" / "training_state.npz") as arrays:
            (multipliers,) = [arrays[n] for n in arrays.files if n.endswith("rate_multipliers")]
        assert sorted(set(multipliers.tolist())) == [1, 2]
        shutil.copy(small_data_dir / "train-00001-of-00003", damaged_data_dir)  # repaired: the epochs differ
        with pytest.raises(ValueError, match=r"records_left_out was \['train-00001-of-00003, record "):
            train_here(tmp_path / "run", epochs=2, **options)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("without_pictures")
def test_training_stops_without_improvement_also_when_resumed(train_here, tmp_path, monkeypatch, capsys):
    accuracies, on_epoch_end = (0.4, 0.6, 0.5, 0.55, 0.3, 0.2), callbacks.BestEpoch.on_epoch_end
    monkeypatch.setattr(
        callbacks.BestEpoch,
        "on_epoch_end",
        lambda self, epoch, logs: on_epoch_end(self, epoch, {"val_top1": accuracies[epoch]}),
    )
    train_here(tmp_path / "run", epochs=3, early_stopping_epochs=3)
    for _ in range(2):  # resumed, and complete
        train_here(tmp_path / "run", epochs=6, early_stopping_epochs=3, keep_best=True)
        output = capsys.readouterr().out
        assert f"Stopped early, after epoch 5: {tmp_path / 'run' / 'model.keras'}" in output
        assert "in epoch 2." in output
    assert json.loads((tmp_path / "run" / "training.json").read_text())["epochs"] == 5
    train_here(tmp_path / "run", epochs=6)
    assert "Trained to the end of epoch 6" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
class TestFineTuning:
    @pytest.fixture(scope="class")
    @classmethod
    def three_classes(cls, tmp_path_factory):
        """Three classes of Fashion-MNIST as a folder of files: 60 images each for training, 20 for validation."""
        root = tmp_path_factory.mktemp("folder")
        source = sources.open_source("fashion_mnist")
        for split, count in (("train", 60), ("validation", 20)):
            left = dict.fromkeys(("Trouser", "Bag", "Ankle boot"), count)
            for _, image, label in source.read(split, 0, source.count(split)):
                name = source.class_names[label]
                if left.get(name):
                    left[name] -= 1
                    path = root / "images" / split / name / f"{left[name]}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)
        counts = {"num_train_shards": 2, "num_validation_shards": 1, "num_processes": 1}
        dataset_builder.build_dataset(f"folder:{root / 'images'}", root / "data", image_px=64, **counts)
        return str(root / "data")

    def test_new_head_on_frozen_layers_learns_a_small_folder(self, run_dir, three_classes, train_here, tmp_path):
        train_here(
            tmp_path / "run",
            data_dir=three_classes,
            batch_size=20,
            epochs=6,
            initializer="he_normal",
            schedule="cosine",
            learning_rate=0.02,
            init_from=str(run_dir),
            new_head=True,
            freeze=("conv1", "conv2"),
        )
        assert json.loads((tmp_path / "run" / "training.json").read_text())["val_top1_error"] < 0.4  # chance is 0.67
        before = load_model(run_dir)
        after = load_model(tmp_path / "run")
        assert after.description.class_names == ("Ankle boot", "Bag", "Trouser")
        np.testing.assert_array_equal(after.get_layer("mean_image").mean, before.get_layer("mean_image").mean)
        for name, same in (("conv1", True), ("conv2", True), ("conv3", False), ("fc7", False)):
            pairs = zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs) == same, name
        assert after.get_layer("mean_image").scale == 0.0125  # the source's, not the variant's

    @pytest.mark.long
    def test_half_precision_learns(self, data_dir, train_here, tmp_path):
        options = {"data_dir": str(data_dir), "batch_size": 50, "epochs": 2, "schedule": "cosine"}
        train_here(tmp_path / "run", precision="mixed_float16", learning_rate=0.1, seed=3, **options, **HE)
        model = keras.models.load_model(tmp_path / "run" / "model.keras")
        assert model.get_layer("conv2").compute_dtype == "float16"
        assert json.loads((tmp_path / "run" / "training.json").read_text())["val_top1_error"] < 0.8
