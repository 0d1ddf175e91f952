"""The flags of alexnet-train."""

from absl import flags

from alexnet_tf import variants
from alexnet_tf.tfrecords import statistics
from alexnet_tf.training import optimizers, schedules

# A run that goes on must agree with its checkpoint in these: with any other the numbers would no longer be one run's.
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
    "label_smoothing",
    "momentum",
    "weight_decay",
    "input_scale",
    "init_from",
    "new_head",
    "freeze",
    "color_noise",
    "color_noise_epochs",
    "images_per_crop",
    "last_crop_offset",
    "precision",
)


# By these TensorBoard compares runs, beside the flags above: they too decide what a run comes to.
_HPARAMS = (
    *FIXED_FLAGS,
    "epochs",
    "initializer",
    "bias_rate",
    "layer_rates",
    "plateau_patience",
    "reduce_in",
)


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string(
        "run_dir", None, "Folder for checkpoints, TensorBoard's event files and the model.", required=True
    )
    flags.DEFINE_enum("variant", "paper", sorted(variants.VARIANTS), "Which network: a row of alexnet_tf/variants.py.")
    flags.DEFINE_integer("epochs", 90, "Passes over the training images, all in all.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 128, "Images in a step, on all devices and machines together.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of first weights, shuffling, augmentation and dropout.")

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
    flags.DEFINE_float("lars_trust", 0.001, "LARS: the share of its size that a layer may change in a step of rate 1.")
    flags.DEFINE_enum(
        "schedule",
        "plateau",
        schedules.SCHEDULES,
        "How the learning rate changes. plateau: divided by 10, three times at most, when the validation error stops "
        "improving (the paper's); original: by epoch, with rates of its own for biases and conv1, as the original "
        "program's notes say; step: divided by 10 every --step_epochs; cosine, poly: falls to 0 over all epochs, "
        "along half a cosine or a parabola; constant: never.",
    )
    flags.DEFINE_integer("plateau_patience", 5, "Epochs without improvement before plateau divides.", lower_bound=1)
    flags.DEFINE_integer("step_epochs", None, "Epochs between two divisions of a step schedule.", lower_bound=1)
    flags.DEFINE_integer(
        "warmup_steps", 0, "Steps in which the rate of cosine or poly first rises from 0.", lower_bound=0
    )
    flags.DEFINE_float("momentum", 0.9, "Momentum of the paper's update rule.")
    flags.DEFINE_float("weight_decay", 0.0005, "Weight decay, inside the momentum, on weights and not on biases.")

    flags.DEFINE_float("bias_rate", 1.0, "What the learning rate of biases is multiplied by.", lower_bound=0)
    flags.DEFINE_list(
        "layer_rates",
        [],
        "What the learning rates of single layers are multiplied by, e.g. conv1=0.1,fc8/bias=2; 0 freezes. May be "
        "changed when a run goes on.",
    )
    flags.DEFINE_float("label_smoothing", 0.0, "Share of each label's weight that is spread over all classes.")

    flags.DEFINE_string(
        "initializer",
        "variant",
        "First weights: variant (the paper's normal distributions and biases), or a Keras initializer such as "
        "he_normal for all kernels, with biases of 0.",
    )
    flags.DEFINE_string(
        "init_from", None, "A model whose weights the run begins with: a run's folder, a .keras or .h5 file."
    )
    flags.DEFINE_bool("new_head", False, "With --init_from: whether the classifier begins anew, for other classes.")
    flags.DEFINE_list("freeze", [], "Layers whose weights stay as they are, e.g. conv1,conv2.")
    flags.DEFINE_float(
        "input_scale",
        None,
        "What centered pixels are multiplied by, by default that of --init_from or else the variant's own, which for "
        "the paper is 1; 0.0125 gives photographs about unit variance.",
    )
    flags.DEFINE_enum(
        "color_noise",
        "standard_deviation",
        list(statistics.COLOR_NOISE_SCALES),
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
        "images_per_crop", 1, "Images in a row that share a crop and a flip; 32 in the original program.", lower_bound=1
    )
    flags.DEFINE_bool(
        "last_crop_offset",
        False,
        "Whether crops may touch the right and bottom edge: 33 x 33 places, as in the original program, for 32 x 32.",
    )

    flags.DEFINE_enum(
        "on_bad_record",
        "fail",
        ["fail", "skip"],
        "What to do about images that can't be read. fail: stop there, and name the file and the record. skip: look at "
        "all images before training, and leave such out.",
    )
    flags.DEFINE_integer("max_bad_records", 100, "How many records may be left out.", lower_bound=0)
    flags.DEFINE_string(
        "data_service",
        None,
        "HOST:PORT of alexnet-data-service, whose processes then read and decode the training images. A run that goes "
        "on does so at about the same image, not the very same.",
    )

    flags.DEFINE_string(
        "strategy",
        "auto",
        "Devices: one; mirrored, a replica on each GPU of this machine; multi_worker, on each GPU of all machines that "
        "TF_CONFIG or SLURM names; tpu:NAME, a Cloud TPU; or auto, multi_worker where there are several workers and "
        "mirrored where there are several GPUs.",
    )
    flags.DEFINE_integer(
        "num_local_workers", 1, "Workers to start on this machine, to try multi_worker out.", lower_bound=1
    )
    flags.DEFINE_integer(
        "max_restarts",
        0,
        "How often to go on by itself after a worker was killed, lost or asked to stop.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "reduce_in",
        "float32",
        optimizers.REDUCE_DTYPES,
        "Type in which the gradients of several replicas are added up: half precision is half the bytes between "
        "machines. May be changed when a run goes on.",
    )
    flags.DEFINE_bool(
        "allow_changed",
        False,
        "Whether to go on with a run though flags, the data or the number of workers are others than before.",
    )
    flags.DEFINE_list(
        "column_devices",
        [],
        "A device for each column, e.g. GPU:0,GPU:1: the paper's two GPUs. Its variables and all its work are on it.",
    )
    flags.DEFINE_bool(
        "allow_fewer_devices",
        False,
        "Whether to train without --column_devices, with a warning, where this machine does not have them.",
    )
    flags.DEFINE_enum("precision", "float32", ["float32", "mixed_float16", "mixed_bfloat16"], "Keras's dtype policy.")
    flags.DEFINE_enum(
        "jit",
        "auto",
        ["auto", "true", "false"],
        "Whether XLA compiles the step. auto: on one GPU; a CPU was measured 1.4 times faster without.",
    )
    flags.DEFINE_integer(
        "checkpoint_every_steps", 1000, "Steps between checkpoints, beside one at each epoch's end.", lower_bound=1
    )
    flags.DEFINE_integer("log_every", 20, "Steps between entries in TensorBoard.", lower_bound=1)
    flags.DEFINE_list(
        "profile_steps",
        [],
        "FIRST,LAST: steps of the run, counted from 1, that TensorFlow's profiler records for TensorBoard.",
    )


def parse_layer_rates(items):
    """Returns {"conv1": 0.1} for ["conv1=0.1"]. Raises ValueError where an item is not of that form."""
    rates = {}
    for item in items:
        name, _, value = item.partition("=")
        try:
            rates[name] = float(value)
        except ValueError as error:
            raise ValueError(f"`layer_rates` must be a list such as conv1=0.1,fc8=2. Received: {item!r}") from error
    return rates


def parse_profile_steps(items):
    """Returns (10, 12) for ["10", "12"], None for []. Raises ValueError where the items are not two such steps."""
    if not items:
        return None
    steps = tuple(int(item) for item in items if item.isdecimal())
    if len(steps) != 2 or len(items) != 2 or not 1 <= steps[0] <= steps[1]:
        raise ValueError(
            "`profile_steps` must be the first and the last step, counted from 1, such as 10,12. "
            f"Received: {','.join(items)}"
        )
    return steps


def hparams(flag):
    """The flags by which runs are compared: a dict from names to numbers, strings and bools, without those not given.

    Args:
        flag: absl's values of the flags.
    """
    values = {name: flag[name].value for name in _HPARAMS}
    values = {name: ",".join(value) if isinstance(value, list) else value for name, value in values.items()}
    return {name: value for name, value in values.items() if value not in (None, "")}
