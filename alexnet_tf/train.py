"""Trains an AlexNet on TFRecords. Start the same command again to go on after a stop."""

import pathlib

import keras
from absl import app, flags

from alexnet_tf import callbacks, checkpoint, convert, model, program, recipe, training, variants
from alexnet_tf.tfrecords import reader, schema, statistics

# A run that goes on must agree with its checkpoint in these: with any other the numbers would no longer be one run's.
_FIXED_FLAGS = (
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


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string(
        "run_dir", None, "Folder for checkpoints, TensorBoard's event files and the model.", required=True
    )
    flags.DEFINE_enum("variant", "paper", sorted(variants.VARIANTS), "Which network: a row of alexnet_tf/variants.py.")
    flags.DEFINE_integer("epochs", 90, "Passes over the training images, all in all.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 128, "Images in a step, on all devices together.", lower_bound=1)
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
        recipe.SCHEDULES,
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
        "strategy", "auto", ["auto", "one", "mirrored"], "Devices: auto is mirrored where there are several GPUs."
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
    flags.DEFINE_integer("log_every_steps", 20, "Steps between entries in TensorBoard.", lower_bound=1)


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


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"This program takes flags only. Received: {argv[1:]}")
    flag = flags.FLAGS
    layer_rates = parse_layer_rates(flag.layer_rates)
    color_noise_epochs = flag.color_noise_epochs
    if flag.schedule == "original":
        if layer_rates or flag.bias_rate != 1:
            raise ValueError("`bias_rate` and `layer_rates` can't be given with schedule=original, which sets them.")
        if color_noise_epochs is None:
            color_noise_epochs = recipe.ORIGINAL_COLOR_NOISE_EPOCHS
    if flag.new_head and not flag.init_from:
        raise ValueError("`new_head` needs `init_from`: without it every layer begins anew.")
    run_dir = pathlib.Path(flag.run_dir)
    description = schema.load_description(flag.data_dir)
    classes = len(description.class_names)
    steps = reader.steps_per_epoch(description, flag.batch_size)
    image_px = variants.VARIANTS[flag.variant].image_px
    validation_data = reader.make_evaluation_dataset(flag.data_dir, flag.batch_size, image_px)
    settings = {name: flag[name].value for name in _FIXED_FLAGS}
    settings |= {"source": description.settings["source"], "classes": classes, "steps_per_epoch": steps}
    checkpoint.refuse_changed_settings(run_dir, settings)
    run_dir.mkdir(parents=True, exist_ok=True)
    description.save(run_dir)

    keras.utils.set_random_seed(flag.seed)
    keras.config.set_dtype_policy(flag.precision)
    column_devices = training.usable_column_devices(flag.column_devices, flag.allow_fewer_devices)
    strategy = training.make_strategy("one" if column_devices and flag.strategy == "auto" else flag.strategy)
    jit = training.use_jit(flag.jit, strategy, column_devices)
    with strategy.scope():
        source = convert.open_model(flag.init_from) if flag.init_from else None
        alexnet = model.build_alexnet(
            flag.variant,
            classes,
            initializer=None if flag.initializer == "variant" else flag.initializer,
            # A network that learned on inputs of one scale goes on with them: it has its rates for them too.
            input_scale=source.get_layer("mean_image").scale if source and not flag.input_scale else flag.input_scale,
            column_devices=column_devices,
        )
        pixels = statistics.Statistics.load(flag.data_dir)
        alexnet.get_layer("mean_image").set_mean_image(pixels.mean(variants.VARIANTS[flag.variant].mean))
        for name in flag.freeze:
            training.freeze(alexnet, name)
        training_model = model.with_color_offset(alexnet)
        learning_rate = recipe.scale_learning_rate(flag.learning_rate, flag.scale_lr, flag.batch_size)
        rate = recipe.make_learning_rate(
            flag.schedule,
            learning_rate,
            flag.epochs * steps,
            flag.warmup_steps,
            flag.step_epochs and flag.step_epochs * steps,
        )
        if flag.optimizer == "lars":
            optimizer = recipe.Lars(rate, flag.momentum, flag.weight_decay, flag.lars_trust)
        else:
            optimizer = recipe.PaperMomentum(rate, flag.momentum, flag.weight_decay)
        training.compile_model(training_model, optimizer, jit, flag.label_smoothing)
        progress = checkpoint.restore_newest(run_dir, alexnet, training_model)
        if source and not progress:
            try:
                convert.copy_weights(source, alexnet, flag.new_head)
            except ValueError as error:
                raise ValueError(f"The model of `init_from`, {flag.init_from}, does not fit: {error}") from error
        if flag.schedule != "original":
            optimizer.set_rate_multipliers({"bias": flag.bias_rate} | layer_rates)

    finished = f"Trained to the end of epoch {flag.epochs}: {run_dir / 'model.keras'}"
    first_step = progress["step"] if progress else 0
    if first_step >= flag.epochs * steps:
        print(finished)
        return
    plateau = callbacks.DivideRateOnPlateau(flag.plateau_patience) if flag.schedule == "plateau" else None
    schedule = [plateau] if plateau else []
    if flag.schedule == "original":
        schedule = [callbacks.FollowOriginalSchedule(optimizer, learning_rate)]
    if progress:
        print(f"Going on after step {first_step}, in epoch {first_step // steps + 1}.")
        if plateau:
            plateau.state = progress["schedule"]

    def training_data(first_step):
        epoch, step = divmod(first_step, steps)
        return reader.make_training_dataset(
            flag.data_dir,
            flag.batch_size,
            image_px,
            seed=flag.seed,
            color_noise=flag.color_noise,
            color_noise_epochs=color_noise_epochs,
            images_per_crop=flag.images_per_crop,
            last_offset=flag.last_crop_offset,
            start_epoch=epoch,
            start_step=step,
        )

    with reader.naming_damaged_shards(flag.data_dir):
        diary = callbacks.Diary(
            run_dir,
            flag.log_every_steps,
            flag.batch_size,
            classes,
            first_images=training.network_inputs(training_data(0), 8),
            description=training.describe_run(description, flag.flags_into_string()),
        )
        print(
            f"Training {flag.variant}: {alexnet.count_params():,} parameters, {classes} classes, "
            f"{description.splits['train'].count:,} images, {steps} steps an epoch, {flag.epochs} epochs."
        )
        training.fit(
            training_model,
            training_data,
            validation_data,
            first_step,
            steps,
            flag.epochs,
            [
                *schedule,
                diary,
                callbacks.SaveCheckpoints(run_dir, alexnet, flag.checkpoint_every_steps, settings, plateau),
                keras.callbacks.TensorBoard(str(run_dir / "tensorboard"), histogram_freq=1, write_graph=False),
            ],
        )
    print(finished)


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
