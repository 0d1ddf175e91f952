"""Finds the training images nearest to others in the space of a layer's features: figure 4, right."""

import pathlib

from absl import flags

from alexnet_tf import cli


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string("features", None, "An .npz file of alexnet-features: the images to search.", required=True)
    flags.DEFINE_string("queries", None, "Another, of the images whose neighbors are searched.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the TFRecords that both are of.", required=True)
    flags.DEFINE_integer("count", 6, "Number of neighbors of each query.", lower_bound=1)
    flags.DEFINE_integer(
        "pictured", 5, "Number of queries in the picture: the first image of as many classes.", lower_bound=1
    )
    flags.DEFINE_string(
        "output", None, "A .png file for the picture; a table of indices and distances goes beside it.", required=True
    )
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    if not flag.output.endswith(".png"):
        raise ValueError(f"`output` must end in .png. Received: {flag.output}")
    table = pathlib.Path(flag.output).with_suffix(".npz")
    cli.check_outputs("output", [flag.output, table], flag.overwrite, [flag.features, flag.queries])

    # Not with the module: TensorFlow takes seconds to import, which --help and mistakes in flags need not wait for.
    from alexnet_tf.evaluation import features, nearest_neighbors, panels
    from alexnet_tf.figures import plots
    from alexnet_tf.tfrecords import schema

    description = schema.load_description(flag.data_dir)
    searched, queries = (features.load_matching(p, flag.data_dir, description) for p in (flag.features, flag.queries))
    if searched.layer != queries.layer:
        raise ValueError(f"Both must be of one layer. Received: {searched.layer} and {queries.layer}")
    if searched.weights != queries.weights and searched.weights and queries.weights:
        raise ValueError(f"Both must be of one model. {flag.features} and {flag.queries} are of different ones.")
    indices, distances = nearest_neighbors.exact_search(queries.vectors, searched.vectors, flag.count)
    picture = panels.draw_neighbors(queries, searched, indices, flag.data_dir, description, flag.pictured)
    plots.save_png(flag.output, picture)
    nearest_neighbors.save(table, indices, distances)
    agreement = (searched.labels[indices[:, 0]] == queries.labels).mean()
    print(
        f"The nearest of {len(searched.labels):,} is of the same class for {agreement:.1%} of {len(indices):,} images."
    )
    print(f"Written: {flag.output}, {table}")


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
