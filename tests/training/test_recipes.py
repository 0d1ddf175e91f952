"""Every recipe sets the options and learning rates of its source."""

import dataclasses
import pathlib

import pytest

from alexnet_tf import train
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.training import build, procedure

RECIPES = pathlib.Path(train.__file__).parent / "recipes"

# The fields that each recipe sets, and its learning rates by step, for the images of ImageNet or of its own data.
PAPER = {"momentum": 0.9, "weight_decay": 0.0005, "learning_rate": 0.01, "epochs": 90}
ORIGINAL = PAPER | {
    "batch_size": 128,
    "schedule": "phases",
    "images_per_crop": 32,
    "last_crop_offset": True,
    "color_noise": "standard_deviation",
}
ORIGINAL_VARIANTS = [
    f"original{kind}" for kind in ("", "_one_column", "_no_overlap", "_no_lrn", "_independent_columns")
]
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
UNIT_VARIANCE = {"variant": "paper", "initializer": "he_normal", "input_scale": 0.0125, "schedule": "cosine"}
EVERY_RECIPE = {
    "paper": (
        PAPER
        | {"variant": "paper", "batch_size": 128, "schedule": "plateau", "plateau_patience": 5}
        | {"initializer": "variant", "input_scale": 1, "color_noise": "standard_deviation"},
        {0: 0.01, 900_000: 0.01},
    ),
    **{name: (ORIGINAL | {"variant": name}, {0: 0.01, 900_000: 0.01}) for name in ORIGINAL_VARIANTS},
    "original_2010": (ORIGINAL | {"variant": "original"}, {0: 0.01}),
    "fall_2009": (ORIGINAL | {"variant": "original_six_conv"}, {0: 0.01}),
    **{
        f"six_conv_{year}": (
            ORIGINAL | {"variant": variant, "learning_rate": 0.001, "init_from": init_from, "init_layers": init_layers},
            {0: 0.001},
        )
        for year, variant, init_from, init_layers in (
            (2009, "original_six_conv", "runs/original", CONVOLUTIONS),
            (2011, "original_six_conv_2011", "runs/six_conv-2009", (*CONVOLUTIONS, "conv6")),
            (2012, "original_six_conv", "runs/six_conv-2011", (*CONVOLUTIONS, "conv6", "fc6", "fc7")),
        )
    },
    "cuda_convnet2": (ORIGINAL | {"variant": "cuda_convnet2", "images_per_crop": 1}, {0: 0.01}),
    **{
        name: (
            {"variant": name, "batch_size": 128, "momentum": 0.9, "weight_decay": 0.004, "layer_decays": decays}
            | {"schedule": "phases", "learning_rate": 0.001, "epochs": 520}
            | {"last_crop_offset": True, "color_noise": "none"},
            {0: 0.001},
        )
        for name, decays in (
            ("cifar_13pct", {"conv1": 0, "conv2": 0}),
            ("cifar_11pct", {"conv1": 0, "conv2": 0, "fc10": 2.5}),
        )
    },
    "caffe": (
        PAPER
        | {"variant": "caffe", "batch_size": 256, "schedule": "step", "step_epochs": 20, "bias_rate": 2}
        | {"last_crop_offset": True, "mean_at_crop": True, "color_noise": "none"},
        {0: 0.01, 100_079: 0.01, 100_080: 0.001, 200_160: 1e-4, 400_320: 1e-6},
    ),
    "one_weird_trick": (
        {"variant": "one_weird_trick", "batch_size": 256, "schedule": "step", "step_epochs": 30, "epochs": 90}
        | {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.0001, "decay_biases": True, "color_noise": "none"}
        | {"crop_scale": (0.08, 1.0), "crop_ratio": (0.75, 4 / 3), "mean_color": (123.675, 116.28, 103.53)},
        {0: 0.01, 150_119: 0.01, 150_120: 0.001, 300_240: 1e-4},
    ),
    "large_batch": (
        {"variant": "batch_norm_32k", "batch_size": 32768, "optimizer": "lars", "lars_trust": 0.001, "momentum": 0.9}
        | {"weight_decay": 0.0005, "learning_rate": 32, "warmup_steps": 400, "schedule": "poly", "epochs": 103}
        | {"lars_biases": True, "decay_biases": True, "warmup_rate": 1, "warmup_overlaps": True}
        | {"last_crop_offset": True, "mean_at_crop": True, "color_noise": "none"},
        # 39 steps in an epoch; 32 (1 - step / 4017)² after the warm-up
        {0: 1, 200: 16.5, 399: 31.9225, 400: 25.9446, 2008: 8.00399, 4017: 0},
    ),
    "modern": (
        UNIT_VARIANCE
        | {"batch_size": 1024, "learning_rate": 0.01, "scale_lr": "linear", "warmup_steps": 6255, "epochs": 90}
        | {"label_smoothing": 0.1, "precision": "mixed_bfloat16"},
        {0: 0, 6255: 0.08, 59_422: 0.04, 112_590: 0},
    ),
    "fashion_mnist": (
        UNIT_VARIANCE
        | {"color_noise": "none", "batch_size": 128, "learning_rate": 0.03, "warmup_steps": 200, "epochs": 10},
        {0: 0, 100: 0.015, 200: 0.03, 2440: 0.015, 4680: 0},
    ),
    "demo": (
        UNIT_VARIANCE
        | {"batch_size": 32, "learning_rate": 0.03, "warmup_steps": 40, "epochs": 5, "log_every": 10}
        | {"precision": "auto"},
        {0: 0, 20: 0.015, 40: 0.03, 465: 0},
    ),
    "transfer": (
        {"variant": "one_weird_trick", "init_from": "torchvision_features", "new_head": True, "color_noise": "none"}
        | {"freeze": ("conv1", "conv2"), "layer_rates": {"conv3": 0.3, "conv4": 0.3, "conv5": 0.3}}
        | {"batch_size": 32, "learning_rate": 0.01, "schedule": "cosine", "epochs": 8}
        | {"precision": "auto"},
        {0: 0.01, 372: 0.005, 744: 0},
    ),
}
IMAGES = {"fashion_mnist": 60_000, "demo": 3000, "transfer": 3000}


class TestRecipes:
    def test_every_recipe_is_tested(self):
        assert EVERY_RECIPE.keys() == {path.stem for path in RECIPES.glob("*.flags")}

    @pytest.mark.parametrize("recipe", EVERY_RECIPE)
    def test_recipe_sets_these_options_and_rates(self, recipe, read_config, small_data_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(train, "_check_weights", lambda config: None)  # of a run that is not there
        options, rates = EVERY_RECIPE[recipe]
        folders = (f"--data_dir={small_data_dir}", f"--run_dir={tmp_path / 'run'}")
        config = read_config(f"--flagfile={RECIPES / f'{recipe}.flags'}", *folders)
        if config.phase:  # test_originals.py compares these
            options = options | {name: getattr(config, name) for name in ("phase", "epochs", "color_noise_epochs")}
        assert config == dataclasses.replace(read_config(*folders), **options)
        optimizer = build.make_optimizer(config, IMAGES.get(recipe, 1_281_167) // config.batch_size)
        for step, rate in rates.items():
            optimizer.iterations.assign(step)
            assert float(optimizer.learning_rate) == pytest.approx(rate, rel=1e-4, abs=1e-6), step
        train.check_start(config)
        # The only reason not to train is the data: 46 images of 60 pixels.
        reason = "with 60 pixels" if config.batch_size <= 46 else "from 1 to the number of training images, 46"
        with pytest.raises(ValueError, match=reason):
            procedure.train(config, Worker())
