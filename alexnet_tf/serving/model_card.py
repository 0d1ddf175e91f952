"""The model card of an export: data, training settings, errors, and how its network differs from the paper's."""

import datetime
import importlib.metadata
import json
import pathlib
from typing import TYPE_CHECKING, Any

from alexnet_tf.files import write_json, write_text
from alexnet_tf.model import count_parameters, weights_checksum
from alexnet_tf.networks import layer_table, variants
from alexnet_tf.networks.layer_table import escape
from alexnet_tf.tfrecords import schema
from alexnet_tf.training import checkpoints

if TYPE_CHECKING:
    import keras

_BFLOAT16 = (
    "Fast on processors with AVX512_BF16 or AMX (AMD's from Zen 4, Intel's from Sapphire Rapids, `grep -o -m1 "
    "'amx_bf16\\|avx512_bf16' /proc/cpuinfo`) and GPUs with bfloat16 (NVIDIA's from Ampere). It gives the same answers "
    "on others, about 25 times as slowly as in float32: export in float32 for them."
)
_RESIZED = {"crop": "central square", "warp": "both sides"}
_HUB_LICENSES = ("mit", "bsd-3-clause", "bsd-2-clause", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
_PAPER_RECIPE = pathlib.Path(__file__).parents[1] / "recipes" / "paper.flags"


def collect(
    model: "keras.Model",
    description: schema.DatasetDescription,
    run: pathlib.Path | None,
    name: str,
    version: int,
    measured: "keras.Model | None" = None,
) -> dict:
    """Collects what is known of a model.

    Args:
        model: a trained network of `build_alexnet`.
        description: of the data that it was trained on.
        run: None, or the folder of its run. The settings are read from its newest checkpoint, the errors from
            evaluation.json and training.json. An evaluation of other weights is skipped.
        name, version: of the export.
        measured: the network whose errors those are, if `model` was converted from it.

    Returns: a dict that JSON can hold.
    """
    variant = model.name.removeprefix("alexnet_")
    row = variants.VARIANTS.get(variant)
    return {
        "name": name,
        "version": version,
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "network": {
            "variant": variant,
            "title": row.title if row else "no variant of this project",
            "source": row.source if row else None,
            "parameters": count_parameters(model),
            "image_px": model.input_shape[1],
            "differs_from_paper": _differences(variant, len(description.class_names)),
        },
        "data": {
            "source": description.settings.get("source"),
            "classes": len(description.class_names),
            "images": {split: of_split.count for split, of_split in description.splits.items()},
            "image_px": description.image_px,
            "exif_orientation": description.exif_orientation,
            "resize": description.resize,
            "preprocessing": f"{_RESIZED[description.resize]}, resized to {description.image_px} pixels with "
            f"antialiasing; the center crop of {model.input_shape[1]} pixels; the mean image is subtracted in the "
            "network's first layer",
        },
        "recipe": _recipe(run),
        "metrics": _metrics(run, measured or model),
        "packages": {package: importlib.metadata.version(package) for package in ("alexnet-tf", "tensorflow", "keras")},
    }


def _differences(variant: str, classes: int) -> list[dict[str, str]]:
    """The differences from the paper's network, layer by layer."""
    if variant == "paper" or variant not in variants.VARIANTS:
        return []
    return [
        {"of": owner} | {column: value for column, value in zip(layer_table.COLUMNS, values, strict=True) if value}
        for owner, *values in layer_table.difference(variant, "paper", classes)
    ]


def _recipe(run: pathlib.Path | None) -> dict | None:
    """The settings of training, those of the paper's recipe that differ, and the step."""
    folders = checkpoints.complete_checkpoints(run) if run else []
    if run and (run / "progress.json").exists():  # it is a checkpoint itself
        folders = [run]
    if not folders:
        return None
    progress = json.loads((folders[-1] / "progress.json").read_text())
    settings = progress.get("settings", {})
    lines = _PAPER_RECIPE.read_text().splitlines()
    of_paper = dict(line.removeprefix("--").split("=", 1) for line in lines if line.startswith("--"))
    other = {
        name: of_paper[name] for name in settings if name in of_paper and not _same(settings[name], of_paper[name])
    }
    return {"steps": progress["step"], "settings": settings, "paper": other}


def _same(value, text: str) -> bool:
    try:
        return float(value) == float(text)
    except (TypeError, ValueError):
        return str(value) == text


def _metrics(run: pathlib.Path | None, model: "keras.Model") -> dict:
    """The metrics of a model, from the evaluation.json and training.json of its run."""
    result = {}
    for kind in ("evaluation", "training"):
        if run is None or not (path := run / f"{kind}.json").exists():
            continue
        content = json.loads(path.read_text())
        # Of the weights that were evaluated, in 0.1 nothing is known.
        if kind == "evaluation" and [each.get("weights") for each in content["models"]] != [weights_checksum(model)]:
            continue
        if kind == "evaluation":
            views = {view: content[view] for view in ("center_crop", "ten_views") if view in content}
            content = {key: content.get(key) for key in ("split", "images", "chance")}
            for view, of_view in views.items():
                content[view] = {key: of_view[key] for key in of_view if "error" in key and "top" in key}
                content["expected_calibration_error"] = of_view["calibration"]["expected_calibration_error"]
        result[kind] = content
    return result


def as_markdown(card: dict) -> str:
    """The card as a page."""
    network, data, recipe, metrics = (card[key] for key in ("network", "data", "recipe", "metrics"))
    source = escape(data["source"] or "data that is not recorded")
    lines = [
        f"# AlexNet for {data['classes']:,} classes of {source}",
        "",
        f"`{card['name']}`, version {card['version']}: variant `{network['variant']}`, {network['title']}. "
        f"{network['parameters']:,} parameters, images of {network['image_px']} x {network['image_px']} pixels. "
        f"Written as {card['format']} in {card['precision']}, {card['exported']}.",
        "",
    ]
    if card["precision"] == "bfloat16":
        lines += [_BFLOAT16, ""]
    lines += ["## Network", ""]
    differences = network["differs_from_paper"]
    if network["variant"] == "paper":
        lines.append("The same as the paper's.")
    elif differences:
        columns = ["of", *(column for column in layer_table.COLUMNS if any(column in line for line in differences))]
        lines += ["Differences from the paper's:", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(line.get(column, "") for column in columns) + " |" for line in differences]
    else:
        lines.append("Not a variant of this project, by its name: its differences from the paper's are not known.")
    counts = [f"{count:,} {split} images" for split, count in data["images"].items()]
    parts = [f"{data['classes']:,} classes", *counts, f"squares of {data['image_px']} pixels"]
    lines += ["", "## Data", "", f"{source[0].upper()}{source[1:]}: {', '.join(parts)}."]
    lines += ["", f"Preprocessing on the server: {data['preprocessing']}."]
    lines += ["", "## Recipe", ""]
    if recipe is None:
        lines.append("Not known: the model's run has no checkpoint.")
    else:
        lines += [f"{recipe['steps']:,} steps.", "", "| setting | here | paper |", "|---|---|---|"]
        for name, value in recipe["settings"].items():
            if value is not None or name in recipe["paper"]:
                here = "not set" if value is None else escape(value)
                lines.append(f"| {name} | {here} | {recipe['paper'].get(name, '')} |")
        lines += ["", "The last column has the paper's value if it differs (`recipes/paper.flags`)."]
    lines += ["", "## Errors", ""]
    evaluation = metrics.get("evaluation")
    if evaluation:
        lines += [f"On {evaluation['images']:,} {evaluation['split']} images:", ""]
        lines += ["| | top-1 error, % | top-5 error, % |", "|---|---|---|"]
        for view in ("center_crop", "ten_views", "chance"):
            if view in evaluation:
                top1, top5 = (100 * evaluation[view][f"top{k}_error"] for k in (1, 5))
                lines.append(f"| {view.replace('_', ' ')} | {top1:.2f} | {top5:.2f} |")
    elif "training" in metrics:
        errors = metrics["training"]
        lines.append(
            f"In training's validation after epoch {errors['epochs']}, top-1 {100 * errors['val_top1_error']:.2f}%, "
            f"top-5 {100 * errors['val_top5_error']:.2f}% (center crop). alexnet-evaluate was not run on this model."
        )
    else:
        lines.append("Not known: alexnet-evaluate was not run on this model.")
    return "\n".join([*lines, "", *_limits(card)]) + "\n"


def _limits(card: dict) -> list[str]:
    """The section on what the model is not for."""
    error = card["metrics"].get("evaluation", {}).get("expected_calibration_error")
    measured = "not measured" if error is None else f"{100 * error:.1f} % on average on the images above"
    return [
        "## Limits of use",
        "",
        f"- Any image gets one of the {card['data']['classes']:,} classes, also one that shows none of them: there is "
        "no class for the rest.",
        "- The errors hold for images like those of the data above. On other cameras, places, drawings or edited "
        "images they are not known, and mostly larger.",
        f"- Probabilities are not accuracies: the two differ by an amount that is {measured}. Set a threshold on "
        "images of your own.",
        "- What the data lacks or shows one-sidedly, the model has learned so. It was not tested for decisions about "
        "people, and not for attacks by images that were made to mislead it.",
    ]


def as_hub_page(card: dict, license_name: str | None = None) -> str:
    """The card as README.md of a model on the Hugging Face Hub: with a header that the Hub reads.

    Args:
        card: what `collect` returns.
        license_name: of the weights, such as "MIT" or "BSD-3-Clause"; None if it is not known.

    Source: huggingface.co/docs/hub/model-cards.
    """
    variant, data = card["network"]["variant"], card["data"]
    header: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["alexnet", variant, "image-classification"],
        "metrics": ["accuracy"],
    }
    if license_name:
        known = license_name.lower() in _HUB_LICENSES
        header |= {"license": license_name.lower()} if known else {"license": "other", "license_name": license_name}
    first = str(((card["recipe"] or {}).get("settings") or {}).get("init_from"))
    if first.startswith("hf://"):
        header["base_model"] = first.removeprefix("hf://")
    if evaluation := card["metrics"].get("evaluation"):
        source = str(data["source"] or "not recorded")
        accuracies = [
            {
                "type": "accuracy",
                "name": f"top-{k} accuracy, {view.replace('_', ' ')}",
                "value": round(1 - evaluation[view][f"top{k}_error"], 6),
            }
            for view in ("center_crop", "ten_views")
            if view in evaluation
            for k in (1, 5)
        ]
        dataset = {"name": source, "type": source, "split": evaluation["split"]}
        results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": accuracies}]
        header["model-index"] = [{"name": card["name"], "results": results}]
    # JSON is YAML, whatever a name contains.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    use = [
        "",
        "## Use",
        "",
        "```python",
        "import alexnet_tf",
        "",
        f'model, description = alexnet_tf.load_model("hf://USER/{card["name"]}")  # or the path of this folder',
        'predictions = model.predict(alexnet_tf.preprocess(["image.jpg"], model))',
        "print(alexnet_tf.decode_predictions(predictions, model))",
        "```",
    ]
    return "\n".join(lines) + as_markdown(card) + "\n".join(use) + "\n"


def write(folder: str | pathlib.Path, card: dict) -> None:
    """Writes model_card.json and model_card.md."""
    write_json(pathlib.Path(folder) / "model_card.json", card)
    page = as_markdown(card)
    write_text(pathlib.Path(folder) / "model_card.md", page)
