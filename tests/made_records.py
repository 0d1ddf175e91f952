"""Third-party TFRecords."""

import tensorflow as tf


def feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def write_records(path, images_and_labels, image_key="image/encoded", label_key="image/class/label"):
    """Writes a record with two features for each (bytes, int)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content, label in images_and_labels:
            features = {image_key: feature(content), label_key: feature(label)}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def state(folder):
    """Times and contents of the files in a folder: equal only if nothing was written or deleted."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} | {
        folder: folder.stat().st_mtime_ns
    }
