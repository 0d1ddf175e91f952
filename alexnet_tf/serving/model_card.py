"""The model card of an export: network, data, recipe, errors and limits."""

import datetime
import importlib.metadata
import json
import pathlib
from typing import TYPE_CHECKING, Any

from alexnet_tf.evaluation.naming import VIEWS
from alexnet_tf.model import count_parameters, weights_checksum
from alexnet_tf.networks import layer_table, variants
from alexnet_tf.networks.layer_table import escape
from alexnet_tf.tfrecords import schema

if TYPE_CHECKING:
    import keras

_BFLOAT16 = (
    "Fast on processors with AVX512_BF16 or AMX (AMD from Zen 4, Intel from Sapphire Rapids; check with `grep -o -m1 "
    "'amx_bf16\\|avx512_bf16' /proc/cpuinfo`) and GPUs with bfloat16 (NVIDIA from Ampere). Other processors give the "
    "same predictions about 25 times as slowly as in float32: export in float32 for them."
)
_PAGE = """\
# {heading}

`{name}`, version {version}: variant `{variant}`, {title}. {parameters:,} parameters, \
images of {image_px} x {image_px} pixels. Written as {format} in {precision}, {exported}.

{bfloat16}## Network

{network_lines}

## Data

{data_source}: {counts}.

Preprocessing on the server: {preprocessing}.

## Recipe

{recipe_lines}

## Errors

{error_lines}

## Limits of use

{limits}"""
_LIMITS = """\
- The model assigns one of its {classes:,} classes to every image, even if the image shows none of them.
- The errors above hold for images like those of the data set. Expect larger errors on other cameras, scenes, drawings
  or edited images.
- Probabilities are not accuracies: they differ by an amount that is {calibration}. Choose a threshold on your own
  images.
"""
_BIASES = """\
- The model inherits the gaps and biases of its training data. It was not tested for decisions about people or against
  adversarial images.
"""
_HUB_USE = """\

## Use

```python
import alexnet_tf

model = alexnet_tf.load_model("hf://USER/{name}")  # or the path of this folder
predictions = model.predict(alexnet_tf.preprocess(["image.jpg"], model))
print(alexnet_tf.decode_predictions(predictions, model))
```
"""
_RESIZED = {"crop": "central square", "warp": "whole image"}
_HUB_LICENSES = ("mit", "bsd-3-clause", "bsd-2-clause", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
_PAPER_RECIPE = pathlib.Path(__file__).parents[1] / "recipes" / "paper.flags"


def collect(
    model: "keras.Model",
    description: schema.DatasetDescription,
    run: pathlib.Path | None,
    name: str,
    version: int,
    evaluated: "keras.Model | None" = None,
) -> dict:
    """Collects the facts about a model.

    Args:
        model: a trained network.
        description: the data it was trained on.
        run: the folder of its run, or None. Its config.json has the recipe, its evaluation.json and training.json the
            errors. An evaluation of other weights is ignored.
        name, version: of the export.
        evaluated: the network that the run evaluated, if `model` was converted from it.

    Returns: a dict for JSON.

    Raises:
        ValueError: if a file of the run is damaged.
    """
    try:
        recipe, metrics = _recipe(run), _metrics(run, evaluated or model)
        _recipe_lines(recipe)  # raises if something is missing
        _error_lines(metrics)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"config.json, evaluation.json or training.json in {run} is damaged: {error!r}. Move it away."
        ) from error
    variant = model.name.removeprefix("alexnet_")
    row = variants.VARIANTS.get(variant)
    classes, crop_px = len(description.class_names), model.input_shape[1]  # no classes without the top
    return {
        "name": name,
        "version": version,
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "network": {
            "variant": variant,
            "title": row.title if row else "not a variant of this project",
            "source": row.source if row else None,
            "parameters": count_parameters(model),
            "image_px": crop_px,
            "differs_from_paper": _differences(variant, classes or 1000) if row and variant != "paper" else [],
        },
        "data": {
            "source": description.settings.get("source"),
            "classes": classes,
            "images": {name: split.count for name, split in description.splits.items()},
            "image_px": description.image_px,
            "exif_orientation": description.exif_orientation,
            "resize": description.resize,
            "preprocessing": f"{_RESIZED[description.resize]}, resized to {description.image_px} pixels with "
            f"antialiasing; center crop of {crop_px} pixels; the network's first layer subtracts the mean image",
        },
        "recipe": recipe,
        "metrics": metrics,
        "packages": {package: importlib.metadata.version(package) for package in ("alexnet-tf", "tensorflow", "keras")},
    }


def _differences(variant: str, classes: int) -> list[dict[str, str]]:
    """The differences from the paper's network, layer by layer."""
    return [
        {"of": owner} | {column: value for column, value in zip(layer_table.COLUMNS, values, strict=True) if value}
        for owner, *values in layer_table.difference(variant, "paper", classes)
    ]


def _recipe(run: pathlib.Path | None) -> dict | None:
    """The settings of the training, and those of the paper's recipe that differ."""
    # Without model.keras, config.json belongs to a model that Keras saved as a folder.
    if run is None or not (run / "config.json").exists() or not (run / "model.keras").exists():
        return None
    settings = json.loads((run / "config.json").read_text())
    lines = _PAPER_RECIPE.read_text().splitlines()
    paper = dict(line.removeprefix("--").split("=", 1) for line in lines if line.startswith("--"))
    differing = {name: paper[name] for name in settings if name in paper and not _is_equal(settings[name], paper[name])}
    return {"settings": settings, "paper": differing}


def _is_equal(value, text: str) -> bool:
    try:
        return float(value) == float(text)
    except (TypeError, ValueError):
        return str(value) == text


def _metrics(run: pathlib.Path | None, model: "keras.Model") -> dict:
    """The metrics of a model from the evaluation.json and training.json of its run."""
    result = {}
    if run and (path := run / "evaluation.json").exists():
        content = json.loads(path.read_text())
        if [each["weights"] for each in content["models"]] == [weights_checksum(model)]:
            result["evaluation"] = {key: content.get(key) for key in ("split", "images", "chance")}
            for view in filter(content.__contains__, VIEWS):
                measured = content[view]
                result["evaluation"][view] = {key: measured[key] for key in measured if "error" in key and "top" in key}
                result["evaluation"]["expected_calibration_error"] = measured["calibration"][
                    "expected_calibration_error"
                ]
    if run and (path := run / "training.json").exists():
        result["training"] = json.loads(path.read_text())
    return result


def as_markdown(card: dict) -> str:
    """The card as a page."""
    network, data = card["network"], card["data"]
    source = escape(data["source"] or "unrecorded data")
    counts = [f"{count:,} {split} images" for split, count in data["images"].items()]
    classes = [f"{data['classes']:,} classes"] if data["classes"] else []
    error = card["metrics"].get("evaluation", {}).get("expected_calibration_error")
    calibration = "not measured" if error is None else f"{100 * error:.1f} % on average on the images above"
    return _PAGE.format(
        **card | data | network,
        heading=f"AlexNet for {data['classes']:,} classes of {source}" if classes else "Features of AlexNet",
        bfloat16=f"{_BFLOAT16}\n\n" if card["precision"] == "bfloat16" else "",
        network_lines="\n".join(_network_lines(network)),
        data_source=f"{source[0].upper()}{source[1:]}",
        counts=", ".join([*classes, *counts, f"squares of {data['image_px']} pixels"]),
        recipe_lines="\n".join(_recipe_lines(card["recipe"])),
        error_lines="\n".join(_error_lines(card["metrics"])),
        limits=(_LIMITS.format(classes=data["classes"], calibration=calibration) if classes else "") + _BIASES,
    )


def _network_lines(network: dict) -> list[str]:
    differences = network["differs_from_paper"]
    if network["variant"] == "paper":
        return ["The paper's network."]
    if not differences:
        return ["Not a variant of this project: the differences from the paper's network are unknown."]
    columns = ["of", *(column for column in layer_table.COLUMNS if any(column in line for line in differences))]
    return [
        "Differences from the paper's network:",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *("| " + " | ".join(line.get(column, "") for column in columns) + " |" for line in differences),
    ]


def _recipe_lines(recipe: dict | None) -> list[str]:
    if recipe is None:
        return ["Unknown: there is no config.json next to the model."]
    lines = ["| setting | here | paper, if different |", "|---|---|---|"]
    for name, value in recipe["settings"].items():
        if value is not None or name in recipe["paper"]:
            here = "not set" if value is None else escape(value)
            lines.append(f"| {name} | {here} | {recipe['paper'].get(name, '')} |")
    return lines


def _error_lines(metrics: dict) -> list[str]:
    if evaluation := metrics.get("evaluation"):
        lines = [f"On {evaluation['images']:,} {evaluation['split']} images:", ""]
        lines += ["| | top-1 error, % | top-5 error, % |", "|---|---|---|"]
        for view in filter(evaluation.__contains__, (*VIEWS, "chance")):
            top1, top5 = (100 * evaluation[view][f"top{k}_error"] for k in (1, 5))
            lines.append(f"| {view.replace('_', ' ')} | {top1:.2f} | {top5:.2f} |")
        return lines
    if errors := metrics.get("training"):
        return [
            f"Validation after epoch {errors['epochs']} of training: top-1 {100 * errors['val_top1_error']:.2f} %, "
            f"top-5 {100 * errors['val_top5_error']:.2f} % (center crop). alexnet-evaluate was not run on this model."
        ]
    return ["Unknown: alexnet-evaluate was not run on this model."]


def as_hub_page(card: dict, license_name: str | None = None) -> str:
    """The card as README.md of a model on the Hugging Face Hub, with a header that the Hub reads.

    Args:
        card: from `collect`.
        license_name: license of the weights, such as "MIT"; None if it is unknown.

    Source: huggingface.co/docs/hub/model-cards.
    """
    data = card["data"]
    header: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["alexnet", card["network"]["variant"], "image-classification"],
        "metrics": ["accuracy"],
    }
    if license_name:
        known = license_name.lower() in _HUB_LICENSES
        header |= {"license": license_name.lower()} if known else {"license": "other", "license_name": license_name}
    init_from = str(((card["recipe"] or {}).get("settings") or {}).get("init_from"))
    if init_from.startswith("hf://"):
        header["base_model"] = init_from.removeprefix("hf://")
    if evaluation := card["metrics"].get("evaluation"):
        source = str(data["source"] or "not recorded")
        accuracies = [
            {
                "type": "accuracy",
                "name": f"top-{k} accuracy, {view.replace('_', ' ')}",
                "value": round(1 - evaluation[view][f"top{k}_error"], 6),
            }
            for view in filter(evaluation.__contains__, VIEWS)
            for k in (1, 5)
        ]
        dataset = {"name": source, "type": source, "split": evaluation["split"]}
        results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": accuracies}]
        header["model-index"] = [{"name": card["name"], "results": results}]
    # JSON is valid YAML, whatever a name contains.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    return "\n".join(lines) + as_markdown(card) + _HUB_USE.format(name=card["name"])
