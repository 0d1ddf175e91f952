"""The recipes against a table of what the files of the original programs say."""

import dataclasses
import pathlib

import pytest

from alexnet_tf import train
from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.training import phases

RECIPES = pathlib.Path(train.__file__).parent / "recipes"


@dataclasses.dataclass(frozen=True)
class Notes:
    """What a file of learning rates says.

    Attributes:
        first: the first rates of the weights by layer; "all" for layers without their own.
        events: from the epoch of a note to the rates of the weights that it sets. "all": of the layers that have the
            rate of most. (Epochs such as 6.2600 count files of 1,024 images; here they are fractions.)
        killed: the epoch in which training ended.
        last_biases: the rates of the biases in the file, by layer, if they do not contradict a note.
        noise_off: the epoch in which color noise was switched off, or None.
    """

    first: dict[str, float]
    events: dict[float, dict[str, float]]
    killed: float
    last_biases: dict[str, float]
    noise_off: float | None = None


FC = {"fc6": 0.01, "fc7": 0.01, "fc8": 0.01}
NOTES = {
    # layers/layer-params-145.cfg
    "original": Notes(
        {"all": 0.01},
        {25: {"all": 1e-3}, 51: {"all": 1e-4}, 67: {"conv1": 1e-5}, 72: {"conv1": 0}, 79: {"all": 1e-5}},
        killed=91,
        last_biases={"conv1": 0, "all": 0.02},
        noise_off=67,
    ),
    # layers/layer-params-145-2010.cfg
    "original_2010": Notes(
        {"all": 0.01},
        {23: {"all": 1e-3}, 51: {"all": 1e-4}, 68: {"conv1": 1e-5}, 72: {"conv1": 0}, 78: {"all": 1e-5}},
        killed=93,
        last_biases={"conv1": 0, "all": 0.002},
        noise_off=68,
    ),
    # layers/layer-params-145-half.cfg: 1e-5 at the end, without a note; conv1's biases contradict a note
    "original_one_column": Notes(
        {"all": 0.01},
        {20: {"all": 1e-3}, 48: {"all": 1e-4}, 66: {"conv1": 1e-5}, 72: {"conv1": 0}, 78: {"all": 1e-5}},
        killed=96,
        last_biases={"conv1": 0, "conv2": 0.002, "all": 0.02},
        noise_off=66,
    ),
    # layers/layer-params-147.cfg
    "original_no_overlap": Notes(
        {"all": 0.01},
        {23: {"all": 1e-3}, 51: {"all": 1e-4}, 79: {"all": 1e-5, "conv1": 0}},
        killed=90,
        last_biases={"conv1": 0, "all": 0.002},
    ),
    # layers/layer-params-148.cfg
    "original_no_lrn": Notes(
        {"all": 0.01},
        {22: {"all": 1e-3}, 44: {"all": 1e-4}, 69: {"conv1": 1e-5}, 73: {"conv1": 0}, 86: {"all": 1e-5}},
        killed=97,
        last_biases={"conv1": 0, "all": 0.02},
        noise_off=69,
    ),
    # layers/layer-params-150.cfg
    "original_independent_columns": Notes(
        {"all": 0.01},
        {25: {"all": 1e-3}, 49: {"all": 1e-4}, 66: {"conv1": 1e-5}, 72: {"conv1": 0}, 79: {"all": 1e-5}},
        killed=92,
        last_biases={"conv1": 0, "all": 0.02},
        noise_off=66,
    ),
    # layers/layer-params-141-2009-half.cfg
    "fall_2009": Notes(
        {"all": 0.01},
        {
            6 + 2600 / 4400: {"all": 1e-3},
            13 + 3361 / 4400: {"all": 1e-4},
            18 + 2396 / 4400: {"conv1": 1e-5, "conv2": 1e-5},
            21 + 1949 / 4400: {"conv1": 0, "conv2": 0},
            25 + 3718 / 4400: {"all": 1e-5},
        },
        killed=28 + 3271 / 4400,
        last_biases={"conv1": 0, "conv2": 0, "all": 0.002},
        noise_off=18 + 2396 / 4400,
    ),
    # layers/layer-params-146-2009.cfg
    "six_conv_2009": Notes(
        {"all": 1e-3, "conv6": 0.01, **FC},
        {2 + 1600 / 8800: {"conv6": 1e-3, **dict.fromkeys(FC, 1e-3)}},
        killed=6 + 6491 / 8800,
        last_biases={"conv6": 0.002, "all": 0.02},
    ),
    # layers/layer-params-146-2011.cfg; 14,197,122 images
    "six_conv_2011": Notes(
        {"all": 1e-3, **FC, "fc_linear": 0.01},
        {6: dict.fromkeys((*FC, "fc_linear"), 1e-3)},
        killed=8 + 11295 / 13864,
        last_biases={"conv6": 0.002, "all": 0.02},
    ),
    # layers/layer-params-146-2012-2011.cfg
    "six_conv_2012": Notes(
        {"all": 1e-3, "conv1": 1e-4},
        {
            1 + 300 / 1251: {"fc8": 0.01},
            5: {"conv1": 1e-5},
            7: {"conv1": 0},
            9: {"fc8": 1e-3},
            22: {"all": 1e-4},
            42: {"all": 1e-5},
        },
        killed=54,
        last_biases={"conv1": 0, "conv6": 0.022, "all": 0.02},
        noise_off=38,
    ),
    # cuda-convnet2, layers/layer-params-imagenet-1gpu.cfg: a tgtFactor of 250 in 4 steps, for biases 10 in 2
    "cuda_convnet2": Notes(
        {"all": 0.01},
        {1 + 90 * part / 4: {"all": 0.01 * 250 ** (-part / 3)} for part in (1, 2, 3)},
        killed=91,
        last_biases={"all": 0.002},
    ),
    # cuda-convnet2, layers/layer-params-cifar10-11pct.cfg; the other file names no epochs
    **dict.fromkeys(
        ("cifar_11pct", "cifar_13pct"),
        Notes({"all": 1e-3}, {501: {"all": 1e-4}, 511: {"all": 1e-5}}, killed=521, last_biases={"all": 0.002}),
    ),
}


def by_layer(rates, layers):
    return {name: rates.get(name, rates["all"]) for name in layers}


def phase_rates(phase, kind, layers):
    default = phase.weights if kind == "kernel" else phase.biases
    return {name: phase.layers.get(f"{name}/{kind}", phase.layers.get(name, default)) for name in layers}


def test_every_recipe_with_phases_is_compared():
    assert NOTES.keys() == {path.stem for path in RECIPES.glob("*.flags") if "--schedule=phases" in path.read_text()}


@pytest.mark.parametrize("recipe", NOTES)
def test_phases_follow_the_notes(recipe, read_config):
    config = read_config(f"--flagfile={RECIPES / f'{recipe}.flags'}", "--data_dir=data", "--run_dir=run")
    notes, schedule = NOTES[recipe], phases.parse_phases(config.phase)
    layers = [
        row.name for row in VARIANTS[config.variant].layers if isinstance(row, rows.Conv | rows.Local | rows.Dense)
    ]
    expected = notes.first
    assert phase_rates(schedule[0], "kernel", layers) == by_layer(expected, layers)
    for phase, (epoch, event) in zip(schedule[1:], notes.events.items(), strict=True):
        assert phase.start == pytest.approx(epoch, abs=0.006)
        most = expected["all"]
        if "all" in event:
            expected = {name: event["all"] if rate == most else rate for name, rate in expected.items()}
        expected = expected | event
        assert phase_rates(phase, "kernel", layers) == pytest.approx(by_layer(expected, layers), rel=1e-4)
    assert phase_rates(schedule[-1], "bias", layers) == by_layer(notes.last_biases, layers)
    assert config.epochs == pytest.approx(notes.killed - 1, abs=0.5)
    assert (config.color_noise_epochs or config.epochs) == pytest.approx((notes.noise_off or notes.killed) - 1, abs=0.5)


# Standard deviation and initial bias of each layer: initW and initB of the original's files.
CONVS = {"conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.03, 0), "conv4": (0.03, 1), "conv5": (0.03, 1)}
HIDDEN = {"fc6": (0.01, 1), "fc7": (0.01, 1)}
CIFAR = {"conv1": (0.0001, 0), "conv2": (0.01, 0), "local3": (0.04, 0), "local4": (0.04, 0), "fc10": (0.01, 0)}


def caffe(bias):
    """The values of Caffe's files; this is the bias of all layers but conv1, conv3 and fc8."""
    convs = {f"conv{i}": (0.01, 0 if i in (1, 3) else bias) for i in range(1, 6)}
    return convs | {"fc6": (0.005, bias), "fc7": (0.005, bias), "fc8": (0.01, 0)}


INITIAL = {
    **dict.fromkeys(
        [name for name in VARIANTS if name.startswith("original") and "six" not in name],
        CONVS | HIDDEN | {"fc8": (0.01, 0)},  # layers-145.cfg, -145-half, -147, -148, -150
    ),
    "original_six_conv": CONVS | {"conv6": (0.03, 1)} | HIDDEN | {"fc8": (0.01, 0)},  # layers-146-2009.cfg
    "original_six_conv_2011": CONVS  # layers-146-2011.cfg
    | {"conv6": (0.03, 1)}
    | HIDDEN
    | {"fc_linear": (0.01, 0), "fc8": (0.01, 0)},
    # layers-imagenet-1gpu.cfg
    **dict.fromkeys(("cuda_convnet2", "krizhevsky_2014"), CONVS | HIDDEN | {"fc8": (0.01, -7)}),
    "cifar_13pct": CIFAR,
    "cifar_11pct": CIFAR,
    # Caffe, models/bvlc_alexnet/train_val.prototxt and models/bvlc_reference_caffenet/train_val.prototxt
    **dict.fromkeys(("caffe", "caffe_224"), caffe(0.1)),
    "caffenet": caffe(1),
    # nvcaffe, models/alexnet_bn/train_val2_fp16.prototxt
    "batch_norm_32k": {f"conv{i}": (0.01, 0.01) for i in range(1, 6)}
    | {"fc6": (0.005, 0.1), "fc7": (0.005, 0.1), "fc8": (0.01, 0.01)},
}


@pytest.mark.parametrize("variant", INITIAL)
def test_initial_weights_are_those_of_the_file(variant):
    found = {
        row.name: (row.std, row.bias)
        for row in VARIANTS[variant].layers
        if isinstance(row, rows.Conv | rows.Local | rows.Dense)
    }
    assert found == INITIAL[variant]
