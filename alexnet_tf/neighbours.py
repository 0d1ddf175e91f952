"""Finds the images that are nearest to other images in the feature space of a layer: figure 4, right.

Examples:

    alexnet-features --model=runs/photos --data_dir=data/photos --split=train --output=train.npz
    alexnet-features --model=runs/photos --data_dir=data/photos --split=validation --output=validation.npz
    alexnet-neighbours --features=train.npz --queries=validation.npz --data_dir=data/photos --output=neighbors.png
"""

import pathlib

from absl import flags

from alexnet_tf import cli
from alexnet_tf.tfrecords import schema


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_string("features", None, "Features to search: an .npz file from alexnet-features.", required=True)
    flags.DEFINE_string(
        "queries",
        None,
        "Features of the query images: another such file. Default: each image of --features, compared with the others.",
    )
    flags.DEFINE_string("data_dir", None, "Folder of the TFRecords with the images, if they are not image files.")
    flags.DEFINE_enum("metric", "cosine", ["cosine", "euclidean"], "Distance. The paper's is Euclidean.")
    flags.DEFINE_integer("count", 6, "Number of neighbors per query.", lower_bound=1)
    flags.DEFINE_integer(
        "pictured", 5, "Number of queries in the picture: the first images of classes, or any files.", lower_bound=1
    )
    flags.DEFINE_string(
        "output",
        None,
        "A .png file for the picture. Names and distances go into an .npz and a .csv file next to it.",
        required=True,
    )
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    if not flag.output.endswith(".png"):
        raise ValueError(f"`output` must end in .png. Received: {flag.output}")
    tables = [pathlib.Path(flag.output).with_suffix(suffix) for suffix in (".npz", ".csv")]
    inputs = [flag.features, flag.queries or flag.features]
    cli.check_outputs("output", [flag.output, *tables], flag.overwrite, inputs)
    cli.check_exists(*inputs)
    description = schema.load_description(flag.data_dir) if flag.data_dir else None

    # Imported after the checks, because TensorFlow takes seconds to import.
    from alexnet_tf.evaluation import features, nearest_neighbors, panels
    from alexnet_tf.figures import plots

    searched, queries = (features.load_matching(path, flag.data_dir, description) for path in inputs)
    if searched.layer != queries.layer:
        raise ValueError(f"Both files must be of the same layer. Received: {searched.layer} and {queries.layer}")
    if searched.weights != queries.weights and searched.weights and queries.weights:
        raise ValueError(f"Both files must be of the same model. Received: {flag.features} and {flag.queries}")
    indices, distances = nearest_neighbors.exact_search(
        queries.vectors, searched.vectors, flag.count, flag.metric, skip_itself=not flag.queries
    )
    picture = panels.draw_neighbors(queries, searched, indices, flag.data_dir, description, flag.pictured)
    plots.save_png(flag.output, picture)
    for table in tables:
        nearest_neighbors.save(table, indices, distances, queries.files, searched.files)
    if searched.split and queries.split:
        agreement = (searched.labels[indices[:, 0]] == queries.labels).mean()
        print(
            f"The nearest of {len(searched.labels):,} images is of the same class for {agreement:.1%} of "
            f"{len(indices):,} images."
        )
    print(f"Written: {', '.join(map(str, [flag.output, *tables]))}")


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
