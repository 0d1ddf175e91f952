"""How a training run is computed, as flags of alexnet-train: reading, devices, checkpoints and logs."""

import dataclasses
import functools

from alexnet_tf import options

# A run may be resumed with other values.
_option = functools.partial(options.option, on_resume="ignore")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """The part of `config.TrainConfig` on which the result does not depend, apart from the rounding of `reduce_in`."""

    on_bad_record: str = _option(
        "fail",
        "What to do with images that can't be read. fail: stop, and name the file and the record. skip: check all "
        "images before training, and skip these.",
        choices=("fail", "skip"),
        group="Reading",
    )
    max_bad_records: int = _option(100, "Maximum number of records to skip.", minimum=0)
    data_service: str | None = _option(
        None,
        "HOST:PORT of alexnet-data-service, whose processes read and decode the training images. A resumed run then "
        "continues at about the same image, not exactly the same.",
    )

    strategy: str = _option(
        "auto",
        "Devices. one; mirrored: one replica per GPU of this machine; multi_worker: one replica per GPU of all "
        "machines in TF_CONFIG or SLURM; tpu:NAME: a Cloud TPU; auto: multi_worker if there are several workers, "
        "mirrored if there are several GPUs.",
        group="Devices and compilation",
    )
    num_local_workers: int = _option(
        1,
        "Number of worker processes to start on this machine, for example to test --strategy=multi_worker.",
        minimum=1,
    )
    fc_parallel: bool = _option(
        False,
        "Split the fully-connected layers over the workers by units, which saves 96 % of the communication. Each "
        "worker must have one device. Results and files are the same.",
    )
    reduce_in: str = _option(
        "float32",
        "Data type for summing gradients across replicas. Half precision halves the communication.",
        choices=("float32", "float16", "bfloat16"),
        on_resume="warn",
    )
    column_devices: tuple[str, ...] = _option(
        (),
        "One device per column, e.g. GPU:0,GPU:1 for the paper's two GPUs. A column's variables and operations are on "
        "its device.",
    )
    allow_fewer_devices: bool = _option(
        False, "If the machine does not have the --column_devices, warn and train without them."
    )
    jit: str = _option(
        "auto",
        "Compile the training step with XLA. auto: only on a single GPU, since CPUs are 1.4 times faster without.",
        choices=("auto", "true", "false"),
    )

    max_restarts: int = _option(
        0,
        "Maximum number of automatic restarts after a worker was killed, lost or stopped.",
        minimum=0,
        group="Restarting and resuming",
    )
    allow_changed: bool = _option(False, "Resume a run although flags or data have changed.")

    checkpoint_every_steps: int = _option(
        1000,
        "Number of steps between checkpoints within an epoch. There is always one after each epoch.",
        minimum=1,
        group="Checkpoints and logs",
    )
    log_every: int = _option(20, "Number of steps between log points in TensorBoard.", minimum=1)
    profile_steps: tuple[int, int] | None = _option(
        None, "FIRST,LAST step, counted from 1, to profile for TensorBoard."
    )

    def check_execution(self) -> None:
        """Raises ValueError if an option is out of range or contradicts another."""
        if self.profile_steps and not 1 <= self.profile_steps[0] <= self.profile_steps[1]:
            first, last = self.profile_steps
            raise ValueError(f"`profile_steps` must be FIRST,LAST, counted from 1. Received: {first},{last}")
        if self.fc_parallel and (self.strategy not in ("auto", "multi_worker") or self.column_devices):
            raise ValueError(
                "`fc_parallel` needs strategy=auto or multi_worker, and no column_devices. "
                f"Received: strategy={self.strategy}, column_devices={','.join(self.column_devices) or None}"
            )
