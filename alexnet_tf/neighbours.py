"""The training images nearest to others in the space of a layer's features: figure 4, right."""

import pathlib

import numpy as np
from absl import app, flags
from tqdm import tqdm

from alexnet_tf import features as features_of_images
from alexnet_tf import figures, predictions
from alexnet_tf.tfrecords import program, reader, schema

_BLOCK = 16_384  # vectors that are compared at once: of 4,096 numbers 268 MB


def nearest(queries, vectors, count):
    """The nearest of many vectors by Euclidean distance, exactly.

    Args:
        queries: float32 (n, units).
        vectors: float32 (m, units), among which they are looked for.
        count: how many for each query.

    Returns:
        (numbers, distances): int64 and float32 (n, count), the nearest first; of equally near ones that of the lower
        number.

    Raises:
        ValueError: where the vectors are of unlike lengths, or fewer than `count`.
    """
    if queries.shape[1] != vectors.shape[1]:
        raise ValueError(f"Vectors must be of one length. Received: {queries.shape[1]} and {vectors.shape[1]}")
    if not 1 <= count <= len(vectors):
        raise ValueError(f"`count` must be from 1 to the number of vectors, {len(vectors)}. Received: {count}")
    best = np.full((len(queries), count), np.inf)
    numbers = np.zeros((len(queries), count), "int64")
    squares = np.square(queries, dtype="float64").sum(axis=1)[:, None]
    for begin in tqdm(range(0, len(vectors), _BLOCK), unit="block", disable=len(vectors) <= _BLOCK):
        block = np.float64(vectors[begin : begin + _BLOCK])
        # One product of matrices in place of a difference for each pair; in float64, for near ones would cancel.
        distances = squares - 2 * queries @ block.T + np.square(block).sum(axis=1)
        both = np.concatenate([best, distances], axis=1)
        ids = np.concatenate([numbers, np.broadcast_to(np.arange(begin, begin + len(block)), distances.shape)], axis=1)
        order = np.argsort(both, axis=1, kind="stable")[:, :count]
        best, numbers = np.take_along_axis(both, order, axis=1), np.take_along_axis(ids, order, axis=1)
    return numbers, np.sqrt(np.maximum(best, 0)).astype("float32")


def read_images(data_dir, split, numbers):
    """The images of these numbers in a split's order, uint8 (image_px, image_px, 3) each, in a dict by number."""
    wanted = set(map(int, numbers))
    description = schema.load_description(data_dir)
    dataset = reader.make_evaluation_dataset(data_dir, 1, description.image_px, split=split)
    images = {}
    for number, (image, _) in enumerate(dataset):
        if number in wanted:
            images[number] = image[0].numpy()
        if len(images) == len(wanted):
            break
    return images


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "features", None, "An .npz file of alexnet-features: images among which to look.", required=True
    )
    flags.DEFINE_string("queries", None, "Another, of images whose nearest are looked for.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the TFRecords that both are of.", required=True)
    flags.DEFINE_integer("count", 6, "How many of the nearest.", lower_bound=1)
    flags.DEFINE_integer(
        "pictured", 5, "How many of the queries are drawn: the first of as many classes.", lower_bound=1
    )
    flags.DEFINE_string(
        "output", None, "A .png file for the picture; numbers and distances go beside it.", required=True
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"This program takes flags only. Received: {argv[1:]}")
    flag = flags.FLAGS
    if not flag.output.endswith(".png"):
        raise ValueError(f"`output` must end in .png. Received: {flag.output}")
    searched, queries = (features_of_images.Features.load(path) for path in (flag.features, flag.queries))
    description = schema.load_description(flag.data_dir)
    for path, each in ((flag.features, searched), (flag.queries, queries)):
        if each.images != predictions.checksum(description, each.split):
            raise ValueError(f"{path} must hold features of the images in {flag.data_dir}. It holds those of others.")
    if searched.layer != queries.layer:
        raise ValueError(f"Both must be of one layer. Received: {searched.layer} and {queries.layer}")
    numbers, distances = nearest(queries.vectors, searched.vectors, flag.count)
    agree = np.mean(searched.labels[numbers[:, 0]] == queries.labels)

    _, firsts = np.unique(queries.labels, return_index=True)
    drawn = np.sort(firsts)[: flag.pictured]
    own = read_images(flag.data_dir, queries.split, drawn)
    found = read_images(flag.data_dir, searched.split, numbers[drawn].ravel())
    rows = [
        [(own[query], description.class_names[queries.labels[query]])]
        + [(found[number], description.class_names[searched.labels[number]]) for number in numbers[query]]
        for query in map(int, drawn)
    ]
    figures.save_png(flag.output, figures.image_rows(rows))
    table = pathlib.Path(flag.output).with_suffix(".npz")
    schema.write_whole(table, lambda file: np.savez_compressed(file, numbers=numbers, distances=distances))
    print(f"The nearest of {len(searched.vectors):,} is of the same class for {agree:.1%} of {len(numbers):,} images.")
    print(f"Written: {flag.output}, {table}")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
