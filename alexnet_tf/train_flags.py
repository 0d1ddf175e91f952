"""The flags of alexnet-train."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from alexnet_tf import cli
from alexnet_tf.distribution import workers
from alexnet_tf.networks import variants
from alexnet_tf.tfrecords import schema

# A run that is resumed must agree with its checkpoint in these: with other values the numbers would not be one run's.
FIXED_FLAGS = (
    "variant",
    "batch_size",
    "seed",
    "learning_rate",
    "scale_lr",
    "optimizer",
    "lars_trust",
    "schedule",
    "warmup_steps",
    "step_epochs",
    "plateau_patience",
    "label_smoothing",
    "momentum",
    "weight_decay",
    "decay_biases",
    "bias_rate",
    "initializer",
    "input_scale",
    "init_from",
    "new_head",
    "freeze",
    "color_noise",
    "color_noise_epochs",
    "images_per_crop",
    "last_crop_offset",
    "crop_scale",
    "crop_ratio",
    "precision",
)
# In these it may differ, with a warning. (`epochs` only where the learning rate does not depend on it.)
NOTED_FLAGS = ("epochs", "layer_rates", "reduce_in")
# TensorBoard compares runs by all that determine the result.
_HPARAMS = (*FIXED_FLAGS, *NOTED_FLAGS)


def define_flags() -> None:
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of TFRecords made by alexnet-tfrecords, on a disk or at gs://; or, to try out a few thousand images, "
        "folder:PATH, a folder of images for each class, of which they are made in --run_dir; or tfrecords:PATH, "
        "TFRecord files of others, of TensorFlow's ImageNet scripts, say, with JPEGs or PNGs of any size, which are "
        "read where they are.",
        required=True,
    )
    cli.define_record_format()
    flags.DEFINE_string(
        "run_dir", None, "Folder for checkpoints, TensorBoard's event files and the model.", required=True
    )
    flags.DEFINE_enum(
        "variant", "paper", sorted(variants.VARIANTS), "Which network: a row of alexnet_tf/networks/variants.py."
    )
    flags.DEFINE_integer("epochs", 90, "Passes over the training images, in total.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 128, "Images in a step, on all devices and machines together.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of initial weights, shuffling, augmentation and dropout.")

    flags.DEFINE_float(
        "learning_rate", 0.01, "Learning rate: the first of a plateau schedule, the highest of a cosine."
    )
    flags.DEFINE_enum(
        "scale_lr",
        "none",
        ["none", "linear", "sqrt"],
        "How the learning rate, meant for the paper's 128 images in a step, is scaled to --batch_size.",
    )
    flags.DEFINE_enum(
        "optimizer", "momentum", ["momentum", "lars"], "The paper's update rule, or LARS, for batches of thousands."
    )
    flags.DEFINE_float("lars_trust", 0.001, "LARS: how much of its norm a layer may change by in a step of rate 1.")
    flags.DEFINE_enum(
        "schedule",
        "plateau",
        ["plateau", "original", "step", "cosine", "poly", "constant"],
        "How the learning rate changes. plateau: divided by 10, three times at most, when the validation error stops "
        "improving (the paper's); original: by epoch, with separate rates for biases and conv1, as in the original "
        "program's notes; step: divided by 10 every --step_epochs; cosine, poly: falls to 0 over all epochs, "
        "along half a cosine or a parabola; constant: never.",
    )
    flags.DEFINE_integer("plateau_patience", 5, "Epochs without improvement before plateau divides.", lower_bound=1)
    flags.DEFINE_integer("step_epochs", None, "Epochs between two divisions of a step schedule.", lower_bound=1)
    flags.DEFINE_integer(
        "warmup_steps", 0, "Steps in which the rate of cosine or poly first rises from 0.", lower_bound=0
    )
    flags.DEFINE_float("momentum", 0.9, "Momentum of the paper's update rule.")
    flags.DEFINE_float("weight_decay", 0.0005, "Weight decay, inside the momentum, on weights and not on biases.")
    flags.DEFINE_bool("decay_biases", False, "Let weight decay act on biases too, as in PyTorch's recipes.")

    flags.DEFINE_float("bias_rate", 1.0, "Multiplier of the learning rate of biases.", lower_bound=0)
    flags.DEFINE_list(
        "layer_rates",
        [],
        "Multipliers of the learning rates of single layers, e.g. conv1=0.1,fc8/bias=2; 0 freezes. May be changed when "
        "a run is resumed.",
    )
    flags.DEFINE_float("label_smoothing", 0.0, "Fraction of each label's weight that is spread over all classes.")

    flags.DEFINE_string(
        "initializer",
        "variant",
        "Initial weights: variant (the paper's normal distributions and biases), or a Keras initializer such as "
        "he_normal for all kernels, with biases of 0.",
    )
    flags.DEFINE_string(
        "init_from", None, "A model whose weights the run starts from: a run's folder, a .keras or .h5 file."
    )
    flags.DEFINE_bool("new_head", False, "With --init_from: whether the classifier is a new one, for other classes.")
    flags.DEFINE_list("freeze", [], "Layers whose weights are not trained, e.g. conv1,conv2.")
    flags.DEFINE_float(
        "input_scale",
        None,
        "What centered pixels are multiplied by, by default that of --init_from or else the variant's own, which for "
        "the paper is 1; 0.0125 gives photographs about unit variance.",
    )
    flags.DEFINE_enum(
        "color_noise",
        "standard_deviation",
        ["standard_deviation", "eigenvalue_unit_range", "eigenvalue", "none"],
        "Size of the color noise along each principal component of RGB: the original program's, as read by most "
        "re-implementations, the paper's words taken literally (enormous), or none.",
    )

    flags.DEFINE_integer(
        "color_noise_epochs",
        None,
        "Epochs with color noise; by default all, or with --schedule=original the first 66.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "images_per_crop",
        1,
        "Consecutive images with the same crop and flip; 32 in the original program.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "last_crop_offset",
        False,
        "Let crops touch the right and bottom edge: 33 x 33 positions, as in the original program, not 32 x 32.",
    )

    flags.DEFINE_list(
        "crop_scale",
        [],
        "LEAST,LARGEST fraction of an image's area: crops are of random size and aspect, and resized, as by "
        "torchvision's RandomResizedCrop (0.08,1). By default they are of the network's size, as in the paper. "
        "alexnet-tfrecords --keep_aspect keeps what lies outside of the central square for them; --in_place has all.",
    )
    flags.DEFINE_list("crop_ratio", [], "LEAST,LARGEST width of such a crop by its height; by default from 3/4 to 4/3.")
    flags.DEFINE_enum(
        "on_bad_record",
        "fail",
        ["fail", "skip"],
        "What to do about images that can't be read. fail: stop there, and name the file and the record. skip: look at "
        "all images before training, and skip those.",
    )
    flags.DEFINE_integer("max_bad_records", 100, "How many records may be skipped.", lower_bound=0)
    flags.DEFINE_string(
        "data_service",
        None,
        "HOST:PORT of alexnet-data-service, whose processes then read and decode the training images. A resumed run "
        "then continues at about the same image, not exactly the same.",
    )

    flags.DEFINE_string(
        "strategy",
        "auto",
        "Devices: one; mirrored, a replica on each GPU of this machine; multi_worker, on each GPU of all machines that "
        "TF_CONFIG or SLURM names; tpu:NAME, a Cloud TPU; or auto, multi_worker where there are several workers and "
        "mirrored where there are several GPUs.",
    )
    flags.DEFINE_integer(
        "num_local_workers", 1, "Workers to start on this machine, to try out multi_worker.", lower_bound=1
    )
    flags.DEFINE_bool(
        "fc_parallel",
        False,
        "Whether several workers, of one device each, split the fully-connected layers by units and send activations "
        "in place of 96 % of the gradients. Results and files are the same. May be changed when a run is resumed.",
    )
    flags.DEFINE_integer(
        "max_restarts",
        0,
        "How many times to resume automatically after a worker was killed, lost or stopped.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "reduce_in",
        "float32",
        ["float32", "float16", "bfloat16"],
        "Type in which the gradients of several replicas are added up: half precision is half the bytes between "
        "machines. May be changed when a run is resumed.",
    )
    flags.DEFINE_bool(
        "allow_changed",
        False,
        "Whether to resume a run although flags or the data have changed.",
    )
    flags.DEFINE_list(
        "column_devices",
        [],
        "A device for each column, e.g. GPU:0,GPU:1: the paper's two GPUs. Its variables and all its work are on it.",
    )
    flags.DEFINE_bool(
        "allow_fewer_devices",
        False,
        "Whether to train without --column_devices, with a warning, if this machine does not have them.",
    )
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "auto", "mixed_float16", "mixed_bfloat16"],
        "Keras's dtype policy. auto: mixed_bfloat16 on a processor or GPU that is faster in it, otherwise float32.",
    )
    flags.DEFINE_enum(
        "jit",
        "auto",
        ["auto", "true", "false"],
        "Whether XLA compiles the step. auto: on one GPU; a CPU was measured 1.4 times faster without.",
    )
    flags.DEFINE_integer(
        "checkpoint_every_steps",
        1000,
        "Steps between checkpoints, besides one at each epoch's end.",
        lower_bound=1,
    )
    flags.DEFINE_integer("log_every", 20, "Steps between entries in TensorBoard.", lower_bound=1)
    flags.DEFINE_list(
        "profile_steps",
        [],
        "FIRST,LAST: steps of the run, counted from 1, that TensorFlow's profiler records for TensorBoard.",
    )


def check_flags(flag: flags.FlagValues) -> None:
    """Raises ValueError for mistakes that can be found without TensorFlow, whose import takes seconds."""
    parse_layer_rates(flag.layer_rates)
    parse_profile_steps(flag.profile_steps)
    random_crop(flag)
    if flag.crop_ratio and not flag.crop_scale:
        raise ValueError("`crop_ratio` needs `crop_scale`: without it crops are of one size.")
    if flag.last_crop_offset and flag.crop_scale:
        raise ValueError("`last_crop_offset` is for crops of one size, and can't be given with `crop_scale`.")
    if flag.schedule == "original" and (flag.layer_rates or flag.bias_rate != 1):
        raise ValueError("`bias_rate` and `layer_rates` can't be given with schedule=original, which sets them.")
    for name in ("learning_rate", "input_scale"):
        if flag[name].value is not None and flag[name].value <= 0:
            raise ValueError(f"`{name}` must be above 0. Received: {name}={flag[name].value}")
    if flag.new_head and not flag.init_from:
        raise ValueError("`new_head` needs `init_from`: without it every layer starts from initial weights.")
    if flag.fc_parallel:
        _check_fc_parallel(flag)
    cli.record_format(flag, "data_dir")
    if not is_source(flag):
        schema.load_description(flag.data_dir)
    elif flag.num_local_workers > 1 or len(workers.this_worker().addresses) > 1 or flag.data_service:
        raise ValueError(
            "`data_dir` must be made by alexnet-tfrecords first, for several workers or a data service. "
            f"Received: data_dir={flag.data_dir}"
        )


def is_source(flag: flags.FlagValues) -> bool:
    """Whether --data_dir names images of which a data set is made first."""
    return flag.data_dir.startswith(("folder:", "tfrecords:"))


def _check_fc_parallel(flag):
    if flag.strategy not in ("auto", "multi_worker") or flag.column_devices:
        raise ValueError(
            "`fc_parallel` needs strategy=auto or multi_worker, and no column_devices. "
            f"Received: strategy={flag.strategy}, column_devices={','.join(flag.column_devices) or None}"
        )
    num_workers = max(flag.num_local_workers, len(workers.this_worker().addresses))
    if num_workers < 2:
        raise ValueError(
            "`fc_parallel` needs several workers: named in TF_CONFIG, started by SLURM, or on this machine by "
            f"--num_local_workers. Received: {num_workers}"
        )


def parse_layer_rates(items: Sequence[str]) -> dict[str, float]:
    """Returns {"conv1": 0.1} for ["conv1=0.1"]. Raises ValueError if an item is not of that form."""
    rates = {}
    for item in items:
        name, _, value = item.partition("=")
        if name in rates:
            raise ValueError(f"`layer_rates` must name each layer once. Received: {','.join(items)}")
        try:
            rates[name] = float(value)
        except ValueError as error:
            raise ValueError(f"`layer_rates` must be a list such as conv1=0.1,fc8=2. Received: {item!r}") from error
    return rates


def parse_profile_steps(items: Sequence[str]) -> tuple[int, int] | None:
    """Returns (10, 12) for ["10", "12"], None for []. Raises ValueError if the items are not two such steps."""
    if not items:
        return None
    steps = [int(item) for item in items if item.isdecimal()]
    if len(steps) != 2 or len(items) != 2 or not 1 <= steps[0] <= steps[1]:
        raise ValueError(
            "`profile_steps` must be the first and the last step, counted from 1, such as 10,12. "
            f"Received: {','.join(items)}"
        )
    return steps[0], steps[1]


def random_crop(flag: flags.FlagValues) -> dict[str, Any]:
    """The pairs of numbers of crop_scale and crop_ratio that are given. Raises ValueError if one is no pair."""
    pairs = {}
    for name in ("crop_scale", "crop_ratio"):
        if items := flag[name].value:
            try:
                least, largest = map(float, items)
            except ValueError as error:
                raise ValueError(f"`{name}` must be two numbers such as 0.08,1. Received: {','.join(items)}") from error
            pairs[name] = (least, largest)
    return pairs


def given(flag: flags.FlagValues, *names: str) -> dict[str, Any]:
    """The values of flags by name: the arguments of a step that takes them under the same names."""
    return {name: flag[name].value for name in names}


def may_change(flag: flags.FlagValues) -> tuple[str, ...]:
    """The settings in which a resumed run may differ from its checkpoint, the number of workers among them."""
    noted = (name for name in NOTED_FLAGS if name != "epochs" or flag.schedule not in ("cosine", "poly"))
    return ("workers", *noted)


def own_flags(flag: flags.FlagValues) -> list[flags.Flag]:
    """The flags that `define_flags` defines."""
    return flag.get_flags_for_module(__name__)


def hparams(flag: flags.FlagValues) -> dict[str, float | str | bool]:
    """The flags by which runs are compared: numbers, strings and bools by name, without those not given."""
    values = given(flag, *_HPARAMS)
    values = {name: ",".join(value) if isinstance(value, list) else value for name, value in values.items()}
    return {name: value for name, value in values.items() if value not in (None, "")}


def of_the_log(flag: flags.FlagValues, training_images: int) -> dict[str, Any]:
    """What the flags say to `experiment.make_logger`, as its keyword arguments."""
    return {
        "profile_steps": parse_profile_steps(flag.profile_steps),
        "hparams": hparams(flag) | {"training_images": training_images},
        "flag_lines": [each.serialize() for each in own_flags(flag) if each.value is not None],
    }
