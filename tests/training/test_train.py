"""alexnet-train as a user runs it: real images, killed and resumed, refused, warned, fine-tuned."""

import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from made_photos import encoded
from made_records import state, write_records
from PIL import Image
from programs import ENVIRONMENT, program, run, run_well, train_flags

from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import schema, sources


@pytest.mark.slow
class TestTrain:
    def test_run_learns_and_leaves_what_the_readme_says(self, run_dir):
        summary = json.loads((run_dir / "training.json").read_text())
        assert summary["val_top1_error"] < 0.8  # chance is 0.9
        assert summary["images_per_second"] > 0
        assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["00000116", "00000120"]
        assert schema.load_description(run_dir).class_names[9] == "Ankle boot"

    @pytest.mark.parametrize("step", [7, *(pytest.param(step, marks=pytest.mark.long) for step in (42, 74))])
    def test_killed_run_resumes_to_exactly_the_same_weights(self, data_dir, run_dir, tmp_path, step):
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=2", "--checkpoint_every_steps=7")
        process = subprocess.Popen(
            program("train", *flags), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        checkpoints = tmp_path / "run" / "checkpoints"
        while not any(int(path.name) >= step for path in checkpoints.glob("0*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done = max(int(path.name) for path in checkpoints.glob("0*"))
        assert done < 120, "killed too late to be a test"
        (checkpoints / ".tmp-half").mkdir()
        (checkpoints / ".tmp-half" / "model.keras").write_bytes(b"half")

        result = run("train", *flags)
        assert result.returncode == 0, result.stderr
        assert f"Resuming after step {done}," in result.stdout
        assert not list(checkpoints.glob(".tmp-*"))
        undisturbed, _ = load_model(run_dir)
        resumed, _ = load_model(tmp_path / "run")
        for expected, weight in zip(undisturbed.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_damaged_newest_checkpoint_falls_back_to_the_previous_one(self, data_dir, run_dir, tmp_path):
        shutil.copytree(run_dir, tmp_path / "run")
        newest = tmp_path / "run" / "checkpoints" / "00000120" / "training_state.npz"
        newest.write_bytes(newest.read_bytes()[:1000])
        result = run("train", *train_flags(data_dir, tmp_path / "run", "--epochs=2"))
        assert result.returncode == 0, result.stderr
        assert "00000120 can't be read" in result.stderr
        assert "Resuming after step 116," in result.stdout
        undisturbed, _ = load_model(run_dir)
        resumed, _ = load_model(tmp_path / "run")
        for expected, weight in zip(undisturbed.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        np.load(newest)  # written again

    def test_other_settings_are_refused_on_resuming(self, data_dir, run_dir):
        result = run("train", *train_flags(data_dir, run_dir, "--batch_size=25"))
        assert result.returncode != 0
        assert "batch_size was 50 and is now 25" in result.stderr

    def test_loss_that_is_not_finite_stops_the_run(self, data_dir, tmp_path):
        result = run("train", *train_flags(data_dir, tmp_path / "run", "--learning_rate=1e9"))
        assert result.returncode != 0
        assert "error: The loss of step" in result.stderr
        assert not (tmp_path / "run" / "model.keras").exists()

    def test_chance_level_is_warned_of_with_advice(self, data_dir, tmp_path):
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=2", "--learning_rate=1e-6", "--initializer=zeros")
        result = run("train", *flags)
        assert result.returncode == 0, result.stderr
        assert "The loss has been at 2.303, which is ln(classes), for 100 steps" in result.stderr
        assert result.stderr.count("ln(classes)") == 1

    def test_missing_data_is_explained(self, tmp_path):
        result = run("train", *train_flags(tmp_path / "nothing", tmp_path / "run"))
        assert result.returncode != 0
        assert "alexnet-tfrecords --source=" in result.stderr
        assert not (tmp_path / "run").exists()

    def test_unknown_variant_is_refused_with_the_known_names(self, data_dir, tmp_path):
        result = run("train", *train_flags(data_dir, tmp_path / "run", "--variant=vgg"))
        assert result.returncode != 0
        assert "|paper|" in result.stderr

    def test_mirrored_replicas_train_as_one_device_does(self, data_dir, tmp_path):
        # Two logical CPU devices stand for two GPUs.
        script = textwrap.dedent("""
            import sys
            import numpy as np, tensorflow as tf
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
            )
            import keras
            from alexnet_tf import model, train
            from alexnet_tf.distribution import strategies
            from alexnet_tf.training import compilation, optimizers
            x = {"image": np.random.default_rng(0).integers(0, 256, (40, 56, 56, 3)).astype("uint8"),
                 "color_offset": np.random.default_rng(1).normal(size=(40, 3)).astype("float32")}
            y = np.arange(40) % 10
            results = []
            for name in ("one", "mirrored"):
                keras.utils.set_random_seed(0)
                strategy = strategies.make_strategy(name)
                with strategy.scope():
                    alexnet = model.build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125)
                    for layer in ("drop6", "drop7"):
                        alexnet.get_layer(layer).rate = 0.0
                    trained = model.with_color_offset(alexnet)
                    jit = strategies.use_jit("auto", strategy)
                    compilation.compile_model(trained, optimizers.PaperMomentum(0.05), jit)
                data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20).repeat()
                trained.fit(data, steps_per_epoch=20, verbose=0)
                results.append(alexnet.get_weights())
            assert strategy.num_replicas_in_sync == 2
            print("difference", max(np.abs(a - b).max() for a, b in zip(*results, strict=True)))
            sys.argv = ["alexnet-train", *sys.argv[1:]]
            train.run()
        """)
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=1", "--strategy=mirrored")
        command = [sys.executable, "-c", script, *flags]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        difference = next(line.split()[1] for line in result.stdout.splitlines() if line.startswith("difference"))
        assert float(difference) < 1e-6
        assert (tmp_path / "run" / "model.keras").exists()


class TestBadRecords:
    @pytest.fixture
    def damaged(self, data_dir, tmp_path):
        """A copy of the data with a bit flipped in the record in the middle of a shard of training images."""
        folder = shutil.copytree(data_dir, tmp_path / "data")
        shard = folder / "train-00003-of-00016"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        return folder

    @pytest.mark.slow
    def test_damaged_shard_is_named_and_stops_the_run(self, damaged, tmp_path):
        result = run("train", *train_flags(damaged, tmp_path / "run", "--epochs=1"))
        assert result.returncode != 0
        last_line = result.stderr.splitlines()[-1]
        assert f"The data set is damaged. {damaged / 'train-00003-of-00016'}, record " in last_line
        assert "--on_bad_record=skip" in last_line

    @pytest.mark.slow
    @pytest.mark.long
    def test_skip_trains_without_it_counts_it_and_insists_on_that_later(self, damaged, data_dir, tmp_path):
        flags = train_flags(damaged, tmp_path / "run", "--on_bad_record=skip", "--epochs=1")
        output = run_well("train", *flags)
        assert re.search(r"Skipped: .*train-00003-of-00016, record \d+: it can't be read: corrupted record", output)
        assert "2,999 images, 59 steps per epoch" in output
        assert json.loads((tmp_path / "run" / "training.json").read_text())["records_left_out"] == 1
        output = run_well(
            "evaluate",
            f"--model={tmp_path / 'run'}",
            f"--data_dir={damaged}",
            "--split=train",
            "--on_bad_record=skip",
            "--noten_views",
        )
        assert "2,999 images of train" in output
        assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["records_left_out"] == 1
        shutil.copy(data_dir / "train-00003-of-00016", damaged)  # repaired: then the epochs differ
        result = run("train", *flags, "--epochs=2")
        assert result.returncode != 0
        assert "records_left_out was ['train-00003-of-00016, record " in result.stderr

    @pytest.mark.slow
    def test_more_than_allowed_stop_the_run(self, damaged, tmp_path):
        flags = train_flags(damaged, tmp_path / "run", "--on_bad_record=skip", "--max_bad_records=0")
        result = run("train", *flags)
        assert result.returncode != 0
        assert "At most 0 records may be damaged (--max_bad_records). Found: 1." in result.stderr


@pytest.fixture(scope="module")
def folder_data_dir(tmp_path_factory):
    """Three classes of Fashion-MNIST as a folder of files: 60 images each for training, 20 for validation."""
    root = tmp_path_factory.mktemp("folder")
    source = sources.open_source("fashion_mnist")
    for split, wanted in (("train", 60), ("validation", 20)):
        counts = dict.fromkeys(("Trouser", "Bag", "Ankle boot"), 0)
        for name, image, label in source.read(split, 0, source.count(split)):
            class_name = source.class_names[label]
            if counts.get(class_name, wanted) < wanted:
                counts[class_name] += 1
                path = root / "images" / split / class_name / f"{pathlib.Path(name).stem}-{counts[class_name]}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    flags = [f"--source=folder:{root / 'images'}", f"--data_dir={root / 'data'}", "--image_px=64"]
    run_well("tfrecords.build", *flags, "--num_train_shards=2", "--num_validation_shards=1")
    return root / "data"


@pytest.mark.slow
@pytest.mark.long
class TestRecordsOfOthers:
    def test_they_are_trained_and_evaluated_on_where_they_are(self, tmp_path):
        source = sources.open_source("fashion_mnist")
        for split in schema.SPLITS:
            images = [
                (encoded(Image.fromarray(image).resize((110, 90)), "JPEG", quality=90), label + 1)
                for _, image, label in source.read(split, 0, source.count(split))
            ]
            for number in range(4):
                write_records(tmp_path / "others" / f"{split}-0000{number}-of-00004", images[number::4])
        before, run_dir = state(tmp_path / "others"), tmp_path / "run"
        flags = train_flags(f"tfrecords:{tmp_path / 'others'}", run_dir, "--epochs=2", "--label_offset=1")
        run_well("train", *flags)
        summary = json.loads((run_dir / "training.json").read_text())
        assert summary["val_top1_error"] < 0.8  # chance is 0.9
        run_well("evaluate", f"--model={run_dir}", f"--data_dir={run_dir / 'data'}")
        errors = json.loads((run_dir / "evaluation.json").read_text())
        assert errors["center_crop"]["top1_error"] == pytest.approx(summary["val_top1_error"], abs=0.0015)
        assert errors["ten_views"]["top1_error"] < 0.8
        assert state(tmp_path / "others") == before


@pytest.mark.slow
class TestFineTuning:
    def test_new_head_on_frozen_layers_learns_a_small_folder(self, run_dir, folder_data_dir, tmp_path):
        flags = (
            "--variant=testing",
            "--batch_size=20",
            "--epochs=6",
            "--initializer=he_normal",
            "--schedule=cosine",
            "--learning_rate=0.02",
            f"--init_from={run_dir}",
            "--new_head",
            "--freeze=conv1,conv2",
            f"--data_dir={folder_data_dir}",
            f"--run_dir={tmp_path / 'run'}",
        )
        run_well("train", *flags)
        assert json.loads((tmp_path / "run" / "training.json").read_text())["val_top1_error"] < 0.4  # chance is 0.67
        before, _ = load_model(run_dir)
        after, description = load_model(tmp_path / "run")
        assert description.class_names == ("Ankle boot", "Bag", "Trouser")
        np.testing.assert_array_equal(after.get_layer("mean_image").mean, before.get_layer("mean_image").mean)
        for name, same in (("conv1", True), ("conv2", True), ("conv3", False), ("fc7", False)):
            pairs = zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs) == same, name
        assert after.get_layer("mean_image").scale == 0.0125  # the source's, not the variant's own

    def test_other_network_is_refused_by_the_layer_that_differs(self, run_dir, folder_data_dir, tmp_path):
        flags = (f"--init_from={run_dir}", f"--data_dir={folder_data_dir}", f"--run_dir={tmp_path / 'run'}")
        result = run("train", *flags, "--variant=testing", "--batch_size=20")
        assert result.returncode != 0
        assert ", does not fit: fc8's kernel must be of shape (32, 3). Received: (32, 10)" in result.stderr
