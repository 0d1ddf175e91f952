"""The format of third-party TFRecords, as the flags of the programs that read them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from alexnet_tf import options


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFormat:
    """The format of third-party TFRecords, for the programs that read them."""

    label_offset: int | None = options.option(
        None,
        "tfrecords: label of the first class; default 0. TensorFlow's first ImageNet scripts and the Model Garden use "
        "1, because their 0 is the background.",
        group="Third-party TFRecords",
        on_resume="ignore",
    )
    image_key: str | None = options.option(
        None, "tfrecords: feature with the image; default image/encoded or image.", on_resume="ignore"
    )
    label_key: str | None = options.option(
        None, "tfrecords: feature with the label; default image/class/label or label.", on_resume="ignore"
    )
    class_names: str | None = options.option(
        None,
        "tfrecords: file with one class name per line, in the order of the labels. Default: the names from TensorFlow "
        "Datasets, from image/class/text in the records, or the labels.",
        on_resume="ignore",
    )


NAMES = tuple(field.name for field in dataclasses.fields(RecordFormat))


def given_format(flag: Any, argument: str) -> Mapping[str, Any]:
    """The values of these flags that were given: a dict, empty if none was.

    Args:
        flag: the values of all flags, as attributes.
        argument: name of the flag that names the source.

    Raises:
        ValueError: if one is given for a source that is not "tfrecords:PATH".
    """
    source = getattr(flag, argument)
    given = {name: getattr(flag, name) for name in NAMES if getattr(flag, name) is not None}
    if given and not source.startswith("tfrecords:"):
        raise ValueError(
            f"--{', --'.join(given)} can't be given without --{argument}=tfrecords:PATH. "
            f"Received: --{argument}={source}"
        )
    return given
