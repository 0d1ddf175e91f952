"""The configuration of a training run: the flags of alexnet-train, and what happens when they differ on resume."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from alexnet_tf import cli
from alexnet_tf.networks import rows, variants
from alexnet_tf.options import option
from alexnet_tf.tfrecords import record_format
from alexnet_tf.training import execution
from alexnet_tf.training.phases import parse_phases

PAPER_BATCH_SIZE = 128  # section 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(execution.Execution, record_format.RecordFormat):
    """All settings of a run. Each field is a flag of alexnet-train, whose help describes it.

    The metadata `on_resume` says what happens when a run is resumed with another value: "refuse" (the default), unless
    with --allow_changed; "never", not even then; "warn"; or "ignore", if the result does not depend on it.
    """

    data_dir: str = option(
        dataclasses.MISSING,
        "Folder of TFRecords made by alexnet-tfrecords, on a disk or at gs://. To try out a few thousand images: "
        "folder:PATH, a folder with one folder of images per class, or list:PATH, a text or CSV file of paths and "
        "labels, from which TFRecords are made in --run_dir; or tfrecords:PATH, third-party TFRecord files with JPEGs "
        "or PNGs, which are read in place.",
        on_resume="ignore",
        group="The run",
    )
    run_dir: str = option(
        dataclasses.MISSING, "Folder for checkpoints, TensorBoard's event files and the model.", on_resume="ignore"
    )
    variant: str = option(
        "paper",
        "Network to train: a row of alexnet_tf/networks/variants.py.",
        choices=sorted(variants.VARIANTS),
        on_resume="never",
    )
    epochs: int = option(90, "Number of epochs.", minimum=1, on_resume="warn")
    batch_size: int = option(128, "Global batch size, over all devices and machines.", minimum=1)
    seed: int = option(0, "Seed of initial weights, shuffling, augmentation and dropout.")
    precision: str = option(
        "float32",
        "Keras dtype policy. auto: mixed_bfloat16 if the processor or GPU is faster with it, otherwise float32.",
        choices=("float32", "auto", "mixed_float16", "mixed_bfloat16"),
    )

    keep_best: bool = option(
        False,
        "Also keep the model of the epoch with the lowest validation error, as best.keras in --run_dir.",
        on_resume="ignore",
        group="When to stop and what to keep",
    )
    early_stopping_epochs: int | None = option(
        None,
        "Stop when the validation error has not improved for this many epochs. Default: train all --epochs.",
        minimum=1,
        on_resume="warn",
    )

    learning_rate: float = option(
        0.01, "Initial learning rate; for cosine and poly schedules the rate after the warm-up.", group="Optimizer"
    )
    scale_lr: str = option(
        "none",
        f"How to scale the learning rate from the paper's batch size of {PAPER_BATCH_SIZE} to --batch_size.",
        choices=("none", "linear", "sqrt"),
    )
    optimizer: str = option(
        "momentum",
        "momentum (the paper's) or lars (for batches of thousands of images).",
        choices=("momentum", "lars"),
        on_resume="never",
    )
    lars_trust: float = option(0.001, "LARS trust coefficient.")
    lars_biases: bool = option(False, "Apply LARS to biases and batch normalization too.")
    schedule: str = option(
        "plateau",
        "Learning rate schedule. plateau: divide by 10 when the validation error stops improving, at most three times "
        "(the paper's); phases: by epoch, as --phase says; step: divide by 10 every --step_epochs; cosine, poly: decay "
        "to 0 along half a cosine or a parabola; constant.",
        choices=("plateau", "phases", "step", "cosine", "poly", "constant"),
    )
    phase: tuple[str, ...] = option(
        (),
        "With --schedule=phases, once for each phase: the epoch with which it begins, counted from 1 (1.25 is after a "
        "quarter of the first epoch), and its learning rates, e.g. --phase='25 weights=0.001 biases=0.02 conv1=0 "
        "fc8/kernel=0.01'. Biases without a rate have that of the weights.",
        repeated=True,
    )
    plateau_patience: int = option(5, "Number of epochs without improvement before plateau divides.", minimum=1)
    step_epochs: int | None = option(None, "Number of epochs between two divisions of the step schedule.", minimum=1)
    warmup_steps: int = option(0, "Number of linear warm-up steps (cosine and poly schedules).", minimum=0)
    warmup_rate: float = option(0.0, "Learning rate of the first warm-up step.", minimum=0)
    warmup_overlaps: bool = option(
        False, "Count the steps of the schedule from the beginning of the warm-up instead of its end."
    )
    momentum: float = option(0.9, "Momentum.")
    weight_decay: float = option(0.0005, "Weight decay of the weights. It is part of the momentum, as in the paper.")
    decay_biases: bool = option(False, "Apply weight decay to biases too, as PyTorch does.")
    layer_decays: Mapping[str, float] = option({}, "Factors of the weight decay of layers, e.g. conv1=0,fc8=2.")
    bias_rate: float = option(1.0, "Learning rate multiplier of biases.", minimum=0)
    layer_rates: Mapping[str, float] = option(
        {}, "Learning rate multipliers of layers, e.g. conv1=0.1,fc8/bias=2; 0 freezes a layer.", on_resume="warn"
    )
    label_smoothing: float = option(0.0, "Label smoothing.")
    class_weights: str = option(
        "none",
        "balanced: weight the loss of each image by the inverse frequency of its class, for imbalanced data. none: "
        "weight all images equally, as in the paper.",
        choices=("none", "balanced"),
    )

    initializer: str = option(
        "variant",
        "Initial weights: variant (the paper's normal distributions and biases), or a Keras initializer of the "
        "kernels such as he_normal, with biases of 0.",
        group="Initial weights, fine-tuning",
    )
    initial_biases: float | None = option(None, "Initial value of all biases. Default: that of --initializer.")
    init_from: str | None = option(None, f"Model to fine-tune: {cli.MODELS}.")
    init_layers: tuple[str, ...] = option(
        (), "With --init_from: the layers to take from it, e.g. conv1,conv2. The others start with initial weights."
    )
    new_head: bool = option(False, "With --init_from: start with a new head (the last layer, fc8), for other classes.")
    freeze: tuple[str, ...] = option((), "Layers that are not trained, e.g. conv1,conv2.")
    cache_features: bool = option(
        False,
        "With --freeze of the first layers: compute their outputs once, from the center crops, and train only the "
        "layers above. Epochs are many times as fast, without random crops, flips and color noise.",
    )
    input_scale: float | None = option(
        None,
        "Factor of the centered pixels. Default: that of --init_from, or the variant's (1 in the paper). 0.0125 gives "
        "inputs of about unit variance, as he_normal needs.",
    )

    color_noise: str = option(
        "standard_deviation",
        "Scale of the color noise along each principal component of RGB: standard_deviation (the original program's), "
        "eigenvalue_unit_range (most re-implementations'), eigenvalue (the paper's words taken literally, which is "
        "enormous), or none.",
        choices=("standard_deviation", "eigenvalue_unit_range", "eigenvalue", "none"),
        group="Augmentation",
    )
    color_noise_epochs: int | None = option(None, "Number of epochs with color noise. Default: all.", minimum=0)
    mean_color: tuple[float, float, float] | None = option(
        None, "RED,GREEN,BLUE from 0 to 255 to subtract from all pixels. Default: the mean of the training images."
    )
    mean_at_crop: bool = option(
        False,
        "Subtract the part of the mean image at the position of the crop, as Caffe does, instead of its center. "
        "Reading images is then about half as fast.",
    )
    crops: str = option(
        "random", "Position of the training crops: random (the paper's) or center.", choices=("random", "center")
    )
    flip: bool = option(True, "Mirror half of the training images.")
    images_per_crop: int = option(
        1, "Number of consecutive images that share a crop position and a flip (32 in the original program).", minimum=1
    )
    last_crop_offset: bool = option(
        False,
        "Include the crops at the right and bottom edge: 33 x 33 positions, as in the original program, instead of "
        "32 x 32.",
    )
    crop_scale: tuple[float, float] | None = option(
        None,
        "LEAST,LARGEST fraction of the image's area, for crops of random size and aspect ratio as in torchvision's "
        "RandomResizedCrop (0.08,1). Default: crops of fixed size, as in the paper. To crop outside the central "
        "square, build the data with alexnet-tfrecords --keep_aspect or --in_place.",
    )
    crop_ratio: tuple[float, float] | None = option(
        None, "LEAST,LARGEST aspect ratio (width / height) of these crops. Default: 3/4 to 4/3."
    )

    def __post_init__(self):
        """Raises ValueError if a value is out of range or contradicts another."""
        for name in ("learning_rate", "input_scale"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be above 0. Received: {name}={value}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1). Received: label_smoothing={self.label_smoothing}")
        if self.warmup_steps and self.schedule not in ("cosine", "poly"):
            raise ValueError(f"`warmup_steps` needs schedule=cosine or poly. Received: schedule={self.schedule}")
        if (self.step_epochs is not None) != (self.schedule == "step"):
            raise ValueError(
                "`step_epochs` and schedule=step need each other. "
                f"Received: schedule={self.schedule}, step_epochs={self.step_epochs}"
            )
        self._check_phases()
        self._check_layer_names()
        if (self.new_head or self.init_layers) and not self.init_from:
            raise ValueError(
                "`new_head` and `init_layers` need `init_from`. Without it all layers start with initial weights."
            )
        if self.crop_ratio and not self.crop_scale:
            raise ValueError("`crop_ratio` needs `crop_scale`. Without it crops have a fixed size.")
        if self.crop_scale and (self.last_crop_offset or self.mean_at_crop or self.crops == "center"):
            raise ValueError(
                "`last_crop_offset`, `mean_at_crop` and crops=center are for crops of fixed size and can't be given "
                "with `crop_scale`."
            )
        if self.mean_at_crop and (self.mean_color or variants.VARIANTS[self.variant].mean != "image"):
            raise ValueError("`mean_at_crop` needs a mean image. It can't be given with `mean_color` or a mean color.")
        self.check_execution()
        if self.cache_features and (self.fc_parallel or self.column_devices or self.data_service):
            raise ValueError("`cache_features` can't be given with `fc_parallel`, `column_devices` or `data_service`.")
        record_format.given_format(self, "data_dir")

    def _check_phases(self):
        if (self.schedule == "phases") != bool(self.phase):
            raise ValueError(
                f"`phase` and schedule=phases need each other. Received: schedule={self.schedule}, phase={self.phase}"
            )
        if not self.phase:
            return
        if self.layer_rates or self.bias_rate != 1:
            raise ValueError("`bias_rate` and `layer_rates` can't be given with schedule=phases, which sets them.")
        first = parse_phases(self.phase)[0].weights
        if self.learning_rate != first:
            raise ValueError(
                f"`learning_rate` must be that of the first phase, {first}. Received: {self.learning_rate}. Change the "
                "rates of --phase, or all rates by --scale_lr."
            )

    def _check_layer_names(self):
        variant = variants.VARIANTS[self.variant]
        trained = [shape.name for shape in rows.trace(variant, num_classes=2) if shape.parameters]
        untrained = {"mean_image", *(row.name for row in variant.layers)} - set(trained)
        given: dict[str, Collection[str]] = {
            "freeze": self.freeze,
            "init_layers": [name for name in self.init_layers if name not in untrained],
            "layer_decays": self.layer_decays,
            "layer_rates": [name.partition("/")[0] for name in self.layer_rates if name != "bias"],
        }
        if self.phase:
            given["phase"] = [name.partition("/")[0] for each in parse_phases(self.phase) for name in each.layers]
        for argument, names in given.items():
            if unknown := [name for name in names if name not in trained]:
                raise ValueError(
                    f"`{argument}` must name trainable layers of {self.variant}: {', '.join(trained)}. "
                    f"Received: {unknown[0]!r}"
                )

    @property
    def makes_data(self) -> bool:
        """Whether `data_dir` names images from which a data set is made first."""
        return self.data_dir.startswith(("folder:", "list:", "tfrecords:"))

    @property
    def scaled_learning_rate(self) -> float:
        """The learning rate, scaled to the batch size.

        Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, on batch sizes: the
        square root keeps the variance of the steps, but in his experiments proportional scaling worked better.
        """
        factor = self.batch_size / PAPER_BATCH_SIZE
        return self.learning_rate * {"none": 1.0, "linear": factor, "sqrt": math.sqrt(factor)}[self.scale_lr]

    def on_resume(self, name: str) -> str:
        """What happens if a field differs when a run is resumed: "refuse", "never", "warn" or "ignore"."""
        if name == "epochs" and self.schedule in ("cosine", "poly"):
            return "refuse"  # the learning rate depends on it
        return self.__dataclass_fields__[name].metadata["on_resume"]

    def compared(self) -> dict[str, Any]:
        """The fields on which the result depends, which are compared when a run is resumed."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if self.on_resume(name) != "ignore"}

    def hparams(self) -> dict[str, float | str | bool]:
        """The compared fields that have a value, by which TensorBoard compares runs."""
        flags = self.as_flags()
        values = {name: value for name, value in self.compared().items() if name in flags}
        return {name: value if isinstance(value, int | float | str) else flags[name] for name, value in values.items()}

    def as_flags(self) -> dict[str, str]:
        """The text of each flag that has a value, as on the command line."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _as_text(value) for name, value in values.items() if value not in (None, (), {}, "")}


def _as_text(value) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={number}" for name, number in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
