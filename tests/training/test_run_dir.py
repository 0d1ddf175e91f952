"""The folder of a run: which runs may begin or resume in it."""

import dataclasses
import json
import shutil

import pytest

from alexnet_tf.distribution.workers import Worker
from alexnet_tf.tfrecords import dataset_builder, schema
from alexnet_tf.training import checkpoints, inputs, run_dir

# Another value for each setting that must not change, and what it needs.
CHANGED = {
    "batch_size": 20,
    "seed": 1,
    "learning_rate": 0.5,
    "scale_lr": "sqrt",
    "lars_trust": 0.1,
    "lars_biases": True,
    "schedule": "constant",
    "phase": ("1 weights=0.01",),
    "warmup_steps": 2,
    "warmup_rate": 0.1,
    "warmup_overlaps": True,
    "step_epochs": 2,
    "plateau_patience": 8,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "momentum": 0.8,
    "weight_decay": 0.01,
    "decay_biases": True,
    "layer_decays": {"conv1": 0.0},
    "bias_rate": 2.0,
    "initializer": "he_normal",
    "initial_biases": 0.5,
    "input_scale": 0.5,
    "init_from": "source.keras",
    "init_layers": ("conv1",),
    "new_head": True,
    "freeze": ("conv1",),
    "cache_features": True,
    "color_noise": "none",
    "color_noise_epochs": 1,
    "images_per_crop": 2,
    "last_crop_offset": True,
    "crops": "center",
    "flip": False,
    "mean_at_crop": True,
    "mean_color": (1.0, 2.0, 3.0),
    "crop_scale": (0.1, 1.0),
    "crop_ratio": (0.5, 2.0),
    "precision": "mixed_bfloat16",
}
NEEDED = {
    "phase": {"schedule": "phases"},
    "warmup_steps": {"schedule": "cosine"},
    "step_epochs": {"schedule": "step"},
    "init_layers": {"init_from": "source.keras"},
    "new_head": {"init_from": "source.keras"},
    "crop_ratio": {"crop_scale": (0.1, 1.0)},
}


@pytest.fixture(scope="module")
def data(make_config):
    return inputs.open_data(make_config())


@pytest.fixture
def check(data, make_config, tmp_path, monkeypatch):
    """A function that resumes a run of the default configuration: with other settings before, or other data or changes
    of the configuration now."""

    def settings(config, data):
        return run_dir.settings(config, dataclasses.replace(data, config=config), Worker())

    def check(before=None, data_now=data, **changes):
        saved = settings(make_config(), data) | (before or {})
        monkeypatch.setattr(checkpoints, "newest_settings", lambda folder: saved)
        config = make_config(run_dir=str(tmp_path / "run"), **changes)
        run_dir.check(config, settings(config, data_now))

    return check


class TestSettings:
    def test_they_are_configuration_data_and_workers(self, data, make_config):
        settings = run_dir.settings(make_config(), data, Worker(0, ("a:1", "b:1")))
        assert settings == json.loads(json.dumps(settings))
        assert settings["workers"] == 2
        assert {name for name in settings if not name.startswith("data.")} == {
            *make_config().compared(),
            *("source", "classes", "steps_per_epoch", "workers", "records_left_out"),
        }

    @pytest.mark.parametrize("name, value", CHANGED.items())
    def test_changed_setting_is_refused_unless_allowed(self, name, value, check, caplog):
        changes = NEEDED.get(name, {}) | {name: value}
        with pytest.raises(ValueError, match=f"{name} was .* and is now .*, --allow_changed to resume nevertheless,"):
            check(**changes)
        check(**changes, allow_changed=True)
        assert f"{name} was" in caplog.text

    def test_every_setting_that_is_refused_is_tested(self, make_config):
        config = make_config()
        names = {field.name for field in dataclasses.fields(config)}
        assert {name for name in names if config.on_resume(name) == "refuse"} == CHANGED.keys()

    @pytest.mark.parametrize("before", [{"variant": "paper"}, {"optimizer": "lars"}, {"classes": 3}])
    def test_other_network_is_never_accepted(self, before, check):
        with pytest.raises(ValueError, match=r" was .* and is now .*\. Use the same settings to resume it or another"):
            check(before, allow_changed=True)

    def test_some_settings_may_change_with_a_warning(self, check, caplog):
        check({"workers": 2}, layer_rates={"fc8/bias": 2.0}, epochs=100, reduce_in="float16", early_stopping_epochs=3)
        for change in (
            "epochs was 90 and is now 100",
            "layer_rates was {} and is now {'fc8/bias': 2.0}",
            "reduce_in was 'float32' and is now 'float16'",
            "early_stopping_epochs was None and is now 3",
            "workers was 2 and is now 1",
        ):
            assert change in caplog.text

    @pytest.mark.parametrize("schedule", ["cosine", "poly"])
    def test_other_epochs_are_refused_if_the_rate_depends_on_them(self, schedule, check):
        with pytest.raises(ValueError, match=r"epochs was 90 and is now 100\. .*--allow_changed"):
            check({"schedule": schedule}, schedule=schedule, epochs=100)

    def test_data_built_with_other_settings_are_refused(self, check, small_data_dir, make_config, tmp_path):
        other = {"image_px": 58, "quality": 60, "seed": 1}
        counts = {"num_train_shards": 3, "num_validation_shards": 2, "num_processes": 1}
        source = f"folder:{small_data_dir.parent / 'images'}"
        dataset_builder.build_dataset(source, tmp_path / "data", **other, **counts)
        with pytest.raises(ValueError, match="holds a run with other settings") as caught:
            check(data_now=inputs.open_data(make_config(data_dir=str(tmp_path / "data"))))
        for change in ("image_px was 60 and is now 58", "quality was 95 and is now 60", "seed was 0 and is now 1"):
            assert f"data.{change}" in str(caught.value)
        assert "data.checksum was" in str(caught.value)

    @pytest.mark.parametrize("where", ["class_names", "sha256"])
    def test_data_with_other_content_are_refused(self, where, check, small_data_dir, make_config, tmp_path):
        folder = shutil.copytree(small_data_dir, tmp_path / "data")
        content = json.loads((folder / "dataset.json").read_text())
        if where == "class_names":
            content["class_names"].reverse()
        else:
            content["splits"]["validation"]["shards"][0]["sha256"] = "0" * 64
        del content["checksum"]
        content["checksum"] = schema._checksum(content)
        (folder / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"other settings: data\.checksum was '\w{8}' and is now '\w{8}'\. Use"):
            check(data_now=inputs.open_data(make_config(data_dir=str(folder))))


class TestFolder:
    def test_folder_with_something_else_is_refused(self, data, make_config, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"")
        for folder, message in (
            (tmp_path, r"which holds model\.keras but no run"),
            (tmp_path / "model.keras", r"`run_dir` must be a folder\. Received the file"),
        ):
            config = make_config(run_dir=str(folder))
            with pytest.raises(ValueError, match=message):
                run_dir.check(config, run_dir.settings(config, data, Worker()))

    def test_second_run_in_the_same_folder_is_refused(self, data, tmp_path):
        with run_dir.opened(tmp_path / "run", data, writes=True):
            assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "dataset.json", "statistics.npz"}
            with (
                pytest.raises(ValueError, match="Another process is training in `run_dir`"),
                run_dir.opened(tmp_path / "run", data, writes=True),
            ):
                pass

    def test_only_one_worker_writes(self, data, tmp_path):
        with run_dir.opened(tmp_path / "run", data, writes=False):
            assert not (tmp_path / "run").exists()
