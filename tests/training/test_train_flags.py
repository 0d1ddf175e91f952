"""From flags to what is trained: alexnet-train up to its first step, which is not taken."""

import sys

import keras
import numpy as np
import pytest
from made_photos import encoded
from made_records import state, write_records
from PIL import Image

from alexnet_tf import train, train_flags
from alexnet_tf.distribution import local_workers
from alexnet_tf.model import layer_output
from alexnet_tf.tfrecords import reader, schema, statistics
from alexnet_tf.training import callbacks, optimizers, schedules

BATCH_SIZE = 10  # of 46 images: 4 steps in an epoch


def expected_batch(data_dir, **arguments):
    inputs, _ = next(iter(reader.make_training_dataset(data_dir, BATCH_SIZE, 56, **arguments)))
    return inputs["image"].numpy(), inputs["color_offset"].numpy()


class TestDefaults:
    @pytest.fixture(scope="class")
    @classmethod
    def received(cls, start, tmp_path_factory):
        return start(tmp_path_factory.mktemp("defaults") / "run")

    def test_network_has_the_papers_weights_and_the_mean_image_of_the_data(self, received, small_data_dir):
        mean_image = received.network.get_layer("mean_image")
        expected = statistics.Statistics.load(small_data_dir).mean_image[2:-2, 2:-2]
        np.testing.assert_allclose(mean_image.mean, expected, rtol=1e-6)
        assert mean_image.scale == 1
        assert np.std(received.network.get_layer("fc6").kernels[0]) == pytest.approx(0.01, rel=0.2)
        assert all(layer.trainable for layer in received.network.layers)

    def test_rule_is_the_papers_with_its_plateau(self, received):
        assert type(received.optimizer) is optimizers.PaperMomentum
        assert (received.optimizer.momentum, received.optimizer.weight_decay) == (0.9, 0.0005)
        assert received.rate_at(0) == received.rate_at(300) == pytest.approx(0.01)
        assert received.callback(callbacks.DivideRateOnPlateau).patience == 5
        assert set(received.rate_multipliers().values()) == {1}
        assert received.model.loss == "sparse_categorical_crossentropy"

    def test_training_images_are_those_of_the_seed_0(self, received, small_data_dir):
        for array, expected in zip(received.first_batch(), expected_batch(small_data_dir), strict=True):
            np.testing.assert_array_equal(array, expected)
        assert np.any(received.first_batch(400)[1])

    def test_validation_images_are_of_the_validation_split(self, received):
        numbers = [n for images, _ in received.validation_data(reader.Share()) for n in images[:, 0, 0, 2].numpy()]
        assert sorted(numbers) == list(range(100, 110))
        assert received.others["validation_steps"] == 1

    def test_run_begins_at_its_beginning_and_has_90_epochs(self, received):
        assert (received.first_step, received.steps_per_epoch, received.epochs) == (0, 4, 90)
        assert not received.others["validation_due"]
        saver = received.callback(callbacks.SaveCheckpoints)
        assert (saver.every_steps, saver.step, saver.writes) == (1000, 0, True)
        # What is not finite must not be saved, and what the plateau changes must be.
        kinds = ["TrainingHealthChecks", "DivideRateOnPlateau", "TensorBoardLogger", "SaveCheckpoints"]
        assert [type(callback).__name__ for callback in received.callbacks if callback] == kinds
        assert saver.schedule is received.callback(callbacks.DivideRateOnPlateau)


class TestEveryFlagChanged:
    ARGUMENTS = (
        *("--epochs=5", "--seed=7", "--learning_rate=0.08", "--scale_lr=linear", "--schedule=cosine"),
        *("--warmup_steps=4", "--momentum=0.7", "--weight_decay=0.002", "--bias_rate=3", "--layer_rates=conv2=0.5"),
        *("--label_smoothing=0.2", "--initializer=he_normal", "--input_scale=0.5", "--freeze=conv1,fc7"),
        *("--color_noise=eigenvalue", "--color_noise_epochs=2", "--images_per_crop=5", "--last_crop_offset"),
        *("--reduce_in=float16", "--jit=true", "--checkpoint_every_steps=6", "--log_every=9", "--profile_steps=2,3"),
    )

    @pytest.fixture(scope="class")
    @classmethod
    def received(cls, start, tmp_path_factory):
        return start(tmp_path_factory.mktemp("changed") / "run", *cls.ARGUMENTS)

    def test_rule(self, received):
        optimizer = received.optimizer
        assert (optimizer.momentum, optimizer.weight_decay, optimizer.reduce_dtype) == (0.7, 0.002, "float16")

    def test_learning_rate(self, received):
        highest = 0.08 * BATCH_SIZE / 128
        expected = {0: 0.0, 2: highest / 2, 4: highest, 12: highest / 2, 20: 0.0}  # of 5 epochs of 4 steps
        for step, rate in expected.items():
            assert received.rate_at(step) == pytest.approx(rate, abs=1e-8), step

    def test_rate_multipliers(self, received):
        found = received.rate_multipliers()
        assert {value for path, value in found.items() if path.startswith("conv2/kernel")} == {0.5}
        assert {value for path, value in found.items() if path.startswith("conv2/bias")} == {1.5}
        assert found["fc8/kernel"] == 1 and found["fc8/bias"] == 3

    def test_network(self, received):
        assert received.network.get_layer("mean_image").scale == 0.5
        fc6 = received.network.get_layer("fc6")
        assert np.std(fc6.kernels[0]) > 0.02 and not np.any(fc6.biases[0])
        learning = {layer.name for layer in received.network.layers if layer.trainable_weights}
        assert learning == {"conv2", "conv3", "conv4", "conv5", "fc6", "fc8"}

    def test_seed_determines_the_initial_weights(self, received, start, tmp_path):
        same, other = (start(tmp_path / name, *self.ARGUMENTS, f"--seed={name}") for name in ("7", "8"))
        kernels = [np.asarray(each.network.get_layer("fc6").kernels[0]) for each in (received, same, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[0], kernels[2])

    def test_training_images(self, received, small_data_dir):
        arguments = {"color_noise": "eigenvalue", "images_per_crop": 5, "last_offset": True}
        expected = expected_batch(small_data_dir, seed=7, **arguments)
        for array, other in zip(received.first_batch(), expected, strict=True):
            np.testing.assert_array_equal(array, other)
        assert np.any(received.first_batch(4)[1]) and not np.any(received.first_batch(8)[1])  # epochs 2 and 3

    def test_loss_and_xla(self, received):
        assert received.model.jit_compile
        probabilities, labels = np.array([[0.25, 0.75]], "float32"), np.array([1])
        loss = float(np.squeeze(received.model.loss(labels, probabilities)))
        assert loss == pytest.approx(-(0.9 * np.log(0.75) + 0.1 * np.log(0.25)), rel=1e-5)

    def test_checkpoints_and_logs(self, received):
        assert received.callback(callbacks.SaveCheckpoints).every_steps == 6
        logger = received.callbacks[2]
        assert (logger.log_every, logger.profile_steps, logger.batch_size) == (9, (2, 3), BATCH_SIZE)
        assert "    --weight_decay=0.002" in logger.texts["flags"].splitlines()
        assert logger.hparams["weight_decay"] == 0.002 and logger.hparams["layer_rates"] == "conv2=0.5"
        assert logger.hparams["training_images"] == 46

    def test_settings_in_the_checkpoint_are_all_that_are_fixed(self, received):
        settings = received.callback(callbacks.SaveCheckpoints).settings
        assert {name for name in settings if not name.startswith("data.")} == {
            *train_flags.FIXED_FLAGS,
            *train_flags.NOTED_FLAGS,
            *("source", "classes", "steps_per_epoch", "workers", "records_left_out"),
        }
        assert settings["freeze"] == ["conv1", "fc7"] and settings["workers"] == 1


class TestOriginalSchedule:
    @pytest.fixture(scope="class")
    @classmethod
    def received(cls, start, tmp_path_factory):
        arguments = ("--schedule=original", "--learning_rate=0.16", "--scale_lr=sqrt")
        return start(tmp_path_factory.mktemp("original") / "run", *arguments)

    def test_rates_begin_with_the_scaled_one(self, received):
        first = 0.16 * np.sqrt(BATCH_SIZE / 128)
        assert received.rate_at(0) == pytest.approx(first)
        received.callback(callbacks.FollowOriginalSchedule).on_epoch_begin(24)
        assert received.rate_at(0) == pytest.approx(first / 10)

    def test_color_noise_ends_with_epoch_66(self, received):
        assert np.any(received.first_batch(65 * 4)[1])
        assert not np.any(received.first_batch(66 * 4)[1])


def test_plateau_waits_as_long_as_asked_also_when_mirrored(start, tmp_path):
    received = start(tmp_path / "run", "--plateau_patience=2", "--strategy=mirrored")
    plateau = received.callback(callbacks.DivideRateOnPlateau)
    plateau.set_model(received.model)
    rates = []
    for epoch in range(3):
        plateau.on_epoch_end(epoch, {"val_top1": 0.5})
        rates.append(received.rate_at(epoch))
    assert rates == pytest.approx([0.01, 0.01, 0.001])
    assert type(received.model.distribute_strategy).__name__ == "MirroredStrategy"


def test_workers_and_restarts_are_those_asked_for(flag, small_data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(local_workers, "run_workers", lambda *arguments: arguments)
    own = ["alexnet-train", f"--data_dir={small_data_dir}", f"--run_dir={tmp_path}", "--momentum=0.8"]
    for extra, numbers in ((["--num_local_workers=3"], (3, 0)), (["--max_restarts=2"], (1, 2))):
        monkeypatch.setattr(sys, "argv", [*own, *extra])
        for each in train_flags.own_flags(flag):
            each.unparse()
        flag(sys.argv)
        with pytest.raises(SystemExit) as ending:
            train.main([])
        command, *found = ending.value.code
        assert tuple(found) == numbers
        # Each process is alexnet-train with the same flags, but trains itself.
        assert command[1:3] == ["-m", "alexnet_tf.train"] and "--momentum=0.8" in command
        flag(["alexnet-train", *command[3:]])
        assert (flag.num_local_workers, flag.max_restarts, flag.momentum) == (1, 0, 0.8)


class TestLarsInHalfPrecisionFromAnotherModel:
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, start, tmp_path_factory):
        received = start(tmp_path_factory.mktemp("source") / "run", "--input_scale=0.25", "--initializer=he_normal")
        path = tmp_path_factory.mktemp("model") / "source.keras"
        received.network.save(path)
        return path, received.network

    @pytest.fixture(scope="class")
    @classmethod
    def received(cls, start, source, tmp_path_factory):
        arguments = ("--optimizer=lars", "--lars_trust=0.01", "--schedule=step", "--step_epochs=2", "--new_head")
        arguments += (f"--init_from={source[0]}", "--precision=mixed_float16", "--color_noise=none")
        return start(tmp_path_factory.mktemp("lars") / "run", *arguments)

    def test_rule_and_its_loss_scale(self, received):
        assert isinstance(received.model.optimizer, optimizers.AgreedLossScale)
        assert type(received.optimizer) is optimizers.Lars and received.optimizer.trust == 0.01
        assert [received.rate_at(step) for step in (7, 8)] == pytest.approx([0.01, 0.001])

    def test_weights_are_the_sources_but_for_the_head(self, received, source):
        for name, same in (("conv1", True), ("fc7", True), ("fc8", False)):
            pair = (np.asarray(network.get_layer(name).kernels[0]) for network in (received.network, source[1]))
            assert np.array_equal(*pair) == same, name
        assert received.network.get_layer("mean_image").scale == 0.25
        images = received.first_batch()[0]
        for name, dtype in (("conv2", "float16"), ("softmax", "float32")):
            assert keras.Model(received.network.input, layer_output(received.network, name))(images).dtype == dtype
        assert {weight.dtype for weight in received.network.weights} == {"float32"}

    def test_color_noise_is_off(self, received):
        assert not np.any(received.first_batch()[1])


def test_flags_offer_what_the_library_takes(flag):
    for name, values in (
        ("schedule", schedules.SCHEDULES),
        ("reduce_in", optimizers.REDUCE_DTYPES),
        ("color_noise", statistics.COLOR_NOISE_SCALES),
    ):
        assert list(flag[name].parser.enum_values) == list(values), name


@pytest.mark.slow
def test_folder_of_images_becomes_a_data_set_in_the_run_once(start, small_data_dir, tmp_path, capsys):
    images = small_data_dir.parent / "images"
    received = start(tmp_path / "run", f"--data_dir=folder:{images}", "--schedule=cosine")
    built = schema.load_description(tmp_path / "run" / "data")
    assert built.image_px == 64  # for crops of 56
    assert {name: split.count for name, split in built.splits.items()} == {"train": 46, "validation": 10}
    for array, expected in zip(received.first_batch(), expected_batch(tmp_path / "run" / "data"), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert "Making" in capsys.readouterr().out
    start(tmp_path / "run", f"--data_dir=folder:{images}", "--schedule=cosine")
    assert "nothing to build" in capsys.readouterr().out


def test_records_of_others_are_read_in_place_by_an_index_in_the_run(start, small_data_dir, tmp_path, capsys):
    for split, count in (("train", 46), ("validation", 10)):
        content = encoded(Image.new("RGB", (90, 70), "red"), "JPEG")
        images = [(content, number % 2 + 1) for number in range(count)]
        write_records(tmp_path / "others" / f"{split}-00000-of-00001", images, "jpeg", "y")
    (tmp_path / "names").write_text("odd\neven\n")
    before = state(tmp_path / "others")
    flags = [f"--data_dir=tfrecords:{tmp_path / 'others'}", "--label_offset=1", "--image_key=jpeg", "--label_key=y"]
    flags += [f"--class_names={tmp_path / 'names'}", "--schedule=cosine", "--crop_scale=0.08,1"]
    received = start(tmp_path / "run", *flags)
    made = schema.load_description(tmp_path / "run" / "data")
    assert (made.image_px, made.class_names, made.in_place) == (64, ("odd", "even"), True)  # 64 for crops of 56
    assert np.abs(received.first_batch()[0] - np.array([254, 0, 0])).max() <= 1  # JPEG's red
    assert state(tmp_path / "others") == before
    start(tmp_path / "run", *flags)
    assert "nothing to index" in capsys.readouterr().out


@pytest.fixture
def no_flags(flag):
    """The flags without what other tests gave."""
    for each in train_flags.own_flags(flag):
        each.unparse()
    return flag


def test_flags_of_records_are_refused_without_records(no_flags, tmp_path):
    no_flags(["train", f"--data_dir={tmp_path}", f"--run_dir={tmp_path}", "--label_offset=1"])
    with pytest.raises(ValueError, match=r"--label_offset can't be given without --data_dir=tfrecords:PATH. Received"):
        train_flags.check_flags(no_flags)


@pytest.mark.parametrize("source", ["folder:photos", "tfrecords:records"])
def test_source_of_images_is_refused_for_several_workers(source, no_flags, tmp_path):
    no_flags(["train", f"--data_dir={source}", f"--run_dir={tmp_path}", "--num_local_workers=2"])
    with pytest.raises(ValueError, match=rf"must be made by alexnet-tfrecords first.* Received: data_dir={source}"):
        train_flags.check_flags(no_flags)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "needs several workers: .*Received: 1"),
        (["--num_local_workers=2", "--strategy=mirrored"], "Received: strategy=mirrored, column_devices=None"),
        (["--num_local_workers=2", "--strategy=tpu:local"], "Received: strategy=tpu:local, column_devices=None"),
        (["--num_local_workers=2", "--column_devices=CPU:0,CPU:1"], "column_devices=CPU:0,CPU:1"),
    ],
)
def test_layers_that_nobody_can_split_are_refused(arguments, message, flag, small_data_dir, tmp_path):
    for each in train_flags.own_flags(flag):
        each.unparse()
    flag(["alexnet-train", f"--data_dir={small_data_dir}", f"--run_dir={tmp_path}", "--fc_parallel", *arguments])
    with pytest.raises(ValueError, match=message):
        train_flags.check_flags(flag)
