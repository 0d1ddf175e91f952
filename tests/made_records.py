"""Third-party TFRecords, and what is in the records of a data set."""

import tensorflow as tf

from alexnet_tf.tfrecords import schema


def feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def write_records(path, images_and_labels, image_key="image/encoded", label_key="image/class/label", texts=None):
    """Writes a record for each (bytes, int). `texts`: None, or a dict from label to image/class/text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content, label in images_and_labels:
            features = {image_key: feature(content), label_key: feature(label)}
            if texts:
                features["image/class/text"] = feature(texts[label].encode())
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def read_examples(path):
    return [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]


def stored_records(data_dir, split):
    """Yields (file name, label, class name, encoded image) of each record of a data set's split, in order."""
    for shard in schema.load_description(data_dir).splits[split].shards:
        for example in read_examples(data_dir / shard.name):
            values = example.features.feature
            name, text, image = (
                values[key].bytes_list.value[0] for key in (schema.FILENAME, schema.TEXT, schema.ENCODED)
            )
            yield name.decode(), values[schema.LABEL].int64_list.value[0], text.decode(), image


def change_records(path, change):
    """Passes the list of the examples in a file through `change`."""
    examples = read_examples(path)
    change(examples)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example.SerializeToString(deterministic=True))


def set_feature(number, key, value):
    """A `change` of one feature of a record."""
    return lambda examples: examples[number].features.feature[key].CopyFrom(feature(value))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def state(folder):
    """Times and contents of the files in a folder: equal only if nothing was written or deleted."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} | {
        folder: folder.stat().st_mtime_ns
    }
