"""The training images nearest to others in the space of a layer's features: figure 4, right."""

import pathlib

import numpy as np
from absl import flags
from tqdm import tqdm

from alexnet_tf import features as features_of_images
from alexnet_tf.evaluation import predictions
from alexnet_tf.tfrecords import program, reader, schema
from alexnet_tf.visualization import plots

_BLOCK = 16_384  # vectors that are compared at once: of 4,096 numbers 268 MB
_FEWEST_FOR_FAISS = 10_000


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
    _check_vectors(queries, vectors, count)
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


def nearest_of_many(queries, vectors, count, cells_searched=32, candidates=200):
    """As `nearest`, for a million vectors: only those that faiss takes for near are compared.

    faiss brings the vectors to 128 numbers by their principal components, parts them into 4 √m cells, and looks into
    the cells nearest to a query. What it finds is compared exactly.

    Measured on two cores: among a million vectors of 512 numbers, made in clusters, it found all six nearest of 300
    queries in 23 seconds, learning the cells included; the exact search took 27.

    Args:
        queries, vectors, count: as `nearest` takes them.
        cells_searched: how many cells faiss looks into.
        candidates: how many vectors, `count` at least, are compared exactly.

    Returns: as `nearest`. Some of the nearest may be missing, others then come in their place; the distances are exact.

    Raises:
        ValueError: as `nearest`, and where there are fewer than 10,000 vectors: too few to learn cells from.
        ImportError: without faiss: pip install alexnet-tf[faiss].
    """
    import faiss

    _check_vectors(queries, vectors, count)
    if len(vectors) < _FEWEST_FOR_FAISS:
        raise ValueError(f"faiss must have {_FEWEST_FOR_FAISS:,} vectors to learn from. Received: {len(vectors):,}")
    cells = int(4 * np.sqrt(len(vectors)))
    components = min(128, vectors.shape[1])
    index = faiss.index_factory(vectors.shape[1], f"PCA{components},IVF{cells},Flat")
    learned_from = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 50 * cells), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(learned_from)]))
    for begin in tqdm(range(0, len(vectors), _BLOCK), unit="block"):
        index.add(np.ascontiguousarray(vectors[begin : begin + _BLOCK]))
    faiss.extract_index_ivf(index).nprobe = cells_searched
    _, found = index.search(np.ascontiguousarray(queries), min(max(count, candidates), len(vectors)))
    numbers, distances = np.zeros((len(queries), count), "int64"), np.zeros((len(queries), count), "float32")
    for row, near in enumerate(found):
        near = np.sort(near[near >= 0])  # -1 where the cells hold fewer; sorted, so that twins come in order
        chosen, distances[row] = (array[0] for array in nearest(queries[row : row + 1], vectors[near], count))
        numbers[row] = near[chosen]
    return numbers, distances


def _check_vectors(queries, vectors, count):
    if queries.shape[1] != vectors.shape[1]:
        raise ValueError(f"Vectors must be of one length. Received: {queries.shape[1]} and {vectors.shape[1]}")
    if not 1 <= count <= len(vectors):
        raise ValueError(f"`count` must be from 1 to the number of vectors, {len(vectors)}. Received: {count}")


def draw(queries, searched, numbers, data_dir, description, pictured):
    """Draws images with the nearest that were found for each.

    Args:
        queries, searched: `features.Features` of the images of one data set.
        numbers: int (queries, count), from `nearest`.
        data_dir, description: of the data set.
        pictured: how many of the queries are drawn: the first of as many classes.

    Returns: uint8 (rows, columns, 3).

    Source: figure 4, right.
    """
    _, firsts = np.unique(queries.labels, return_index=True)
    drawn = np.sort(firsts)[:pictured]
    own = reader.read_images(data_dir, description, queries.split, drawn)
    found = reader.read_images(data_dir, description, searched.split, numbers[drawn].ravel())
    found = found.reshape(*numbers[drawn].shape, *found.shape[1:])
    rows = []
    for row, query in enumerate(drawn):
        names = [description.class_names[label] for label in searched.labels[numbers[query]]]
        nearest_images = list(zip(found[row], names, strict=True))
        rows.append([(own[row], description.class_names[queries.labels[query]]), *nearest_images])
    return plots.image_rows(rows)


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "features", None, "An .npz file of alexnet-features: images among which to look.", required=True
    )
    flags.DEFINE_string("queries", None, "Another, of images whose nearest are looked for.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the TFRecords that both are of.", required=True)
    flags.DEFINE_bool(
        "approximate",
        False,
        "Whether faiss picks candidates, of which the nearest are then exact: for a million vectors. Needs "
        "`pip install alexnet-tf[faiss]`.",
    )
    flags.DEFINE_integer("count", 6, "How many of the nearest.", lower_bound=1)
    flags.DEFINE_integer(
        "pictured", 5, "How many of the queries are drawn: the first of as many classes.", lower_bound=1
    )
    flags.DEFINE_string(
        "output", None, "A .png file for the picture; numbers and distances go beside it.", required=True
    )
    program.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    if not flag.output.endswith(".png"):
        raise ValueError(f"`output` must end in .png. Received: {flag.output}")
    table = pathlib.Path(flag.output).with_suffix(".npz")
    program.check_outputs("output", [flag.output, table], flag.overwrite, [flag.features, flag.queries])
    searched, queries = (features_of_images.Features.load(path) for path in (flag.features, flag.queries))
    description = schema.load_description(flag.data_dir)
    for path, each in ((flag.features, searched), (flag.queries, queries)):
        if each.images != predictions.checksum(description, each.split):
            raise ValueError(f"{path} must hold features of the images in {flag.data_dir}. It holds those of others.")
    if searched.layer != queries.layer:
        raise ValueError(f"Both must be of one layer. Received: {searched.layer} and {queries.layer}")
    search = nearest_of_many if flag.approximate else nearest
    numbers, distances = search(queries.vectors, searched.vectors, flag.count)
    agree = np.mean(searched.labels[numbers[:, 0]] == queries.labels)

    picture = draw(queries, searched, numbers, flag.data_dir, description, flag.pictured)
    plots.save_png(flag.output, picture)
    schema.write_whole(table, lambda file: np.savez_compressed(file, numbers=numbers, distances=distances))
    print(f"The nearest of {len(searched.vectors):,} is of the same class for {agree:.1%} of {len(numbers):,} images.")
    print(f"Written: {flag.output}, {table}")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
