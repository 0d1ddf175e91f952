"""Names the five most probable classes of image files, as text and as a panel of pictures."""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
from absl import flags

from alexnet_tf.model import load_model
from alexnet_tf.serving import formats, preprocessing
from alexnet_tf.tfrecords import program
from alexnet_tf.visualization import plots


def open_classifier(path):
    """Opens a trained or an exported model.

    Args:
        path: a run's folder, a .keras file in one, or a numbered folder of `export.export_model`, of any format.

    Returns:
        A function from one encoded image (bytes) to (names, probabilities) of its most probable classes, the most
        probable first. It raises `tf.errors.InvalidArgumentError` where the bytes are no image.

    Raises:
        ValueError: where there is no model.
    """
    path = pathlib.Path(path)
    card_path = path / "assets" / "model_card.json"
    if (path / "saved_model.pb").is_file():
        saved = tf.saved_model.load(str(path))
        classify = saved.signatures["serving_default"]

        def classify_served(encoded):
            outputs = classify(images=tf.constant([encoded]))
            if not outputs["valid"][0]:
                raise tf.errors.InvalidArgumentError(None, None, "the served model can't decode it")
            names = [name.decode() for name in outputs["class_names"][0].numpy()]
            return names, outputs["probabilities"][0].numpy()

        classify_served.saved_model = saved  # a signature does not keep its model's weights alive
        return classify_served

    if card_path.is_file():
        card = json.loads(card_path.read_text())
        class_names = card_path.with_name("labels.txt").read_text(encoding="utf-8").splitlines()
        image_px, crop_px = card["data"]["image_px"], card["network"]["image_px"]
        predict = formats.open_predictor(path)
    else:
        model, description = load_model(path)
        class_names, image_px, crop_px = description.class_names, description.image_px, model.input_shape[1]
        predict = model.predict_on_batch

    def classify_pixels(encoded):
        square = preprocessing.decode_square(tf.constant(encoded), image_px)
        pixels = preprocessing.central_crop(square[None], crop_px)
        probabilities = predict(np.float32(pixels))[0]
        best = np.argsort(-probabilities, kind="stable")[:5]
        return [class_names[c] for c in best], probabilities[best]

    return classify_pixels


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "model", None, "A run's folder, a .keras file in one, or a numbered folder of alexnet-export.", required=True
    )
    flags.DEFINE_string(
        "panel", None, "Where to write the images with their classes as a PNG, in the manner of figure 4."
    )
    program.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    if flag.panel:
        program.check_outputs("panel", [flag.panel], flag.overwrite, arguments)
    classify = open_classifier(flag.model)
    pictures, answers, titles = [], [], []
    failed = False
    for path in arguments:
        try:
            encoded = pathlib.Path(path).read_bytes()
            names, probabilities = classify(encoded)
        except (OSError, tf.errors.InvalidArgumentError) as error:
            print(f"{path}: not an image that can be read: {str(error).splitlines()[0]}", file=sys.stderr)
            failed = True
            continue
        answers.append((names, probabilities))
        titles.append(pathlib.Path(path).stem)
        pictures.append(preprocessing.decode_square(tf.constant(encoded), 256).numpy())
        print(path)
        for name, probability in zip(names, probabilities, strict=True):
            print(f"  {probability:7.2%}  {name}")
    if flag.panel and answers:
        plots.save_png(flag.panel, plots.prediction_panel(pictures, answers, titles))
        print(f"Written: {flag.panel}")
    if failed:
        sys.exit(1)


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main, "IMAGE ...")


if __name__ == "__main__":
    run()
