"""The model card of an export."""

import dataclasses
import json

import pytest

from alexnet_tf.model import build_alexnet, weights_checksum
from alexnet_tf.serving import model_card

ERRORS = {"top1_error": 0.25, "top5_error": 0.125}


def test_page_has_data_recipe_errors_and_limits(untrained, tmp_path):
    model, description = untrained
    run = tmp_path / "run"
    run.mkdir()
    settings = {"learning_rate": 0.1, "init_from": None, "weight_decay": None, "note": "a|b"}
    (run / "config.json").write_text(json.dumps(settings))
    (run / "model.keras").touch()
    view = ERRORS | {"calibration": {"expected_calibration_error": 0.034}}
    evaluation = {"split": "validation", "images": 1000, "chance": ERRORS, "center_crop": view}
    evaluation["models"] = [{"name": "run", "weights": weights_checksum(model)}]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    described = dataclasses.replace(description, settings={"source": "folder:<photos>"})
    card = model_card.collect(model, described, run, "export", 1) | {"format": "onnx", "precision": "int8"}
    page = model_card.as_markdown(card)
    assert page.startswith("# AlexNet for 10 classes of folder:&lt;photos>\n\n`export`, version 1: variant `testing`")
    assert "None" not in page
    assert "| learning_rate | 0.1 | 0.01 |\n" in page
    assert "| weight_decay | not set | 0.0005 |\n" in page
    assert "init_from" not in page
    assert "| note | a\\|b |  |\n" in page
    assert "| center crop | 25.00 | 12.50 |\n" in page
    assert "Folder:&lt;photos>: 10 classes, squares of 64 pixels." in page
    assert "## Limits of use" in page and "3.4 % on average" in page


def test_differences_from_the_paper_are_those_of_the_variant(untrained):
    model, description = untrained
    differs = model_card.collect(model, description, None, "export", 1)["network"]["differs_from_paper"]
    sizes = {(row["of"], row["layer"]): row["output"] for row in differs}
    assert sizes["paper", "conv1"] == "55 x 55 x 96" and sizes["testing", "conv1"] == "27 x 27 x 8"
    paper = build_alexnet("paper", 10, include_top=False)
    assert model_card.collect(paper, description, None, "export", 1)["network"]["differs_from_paper"] == []


@pytest.mark.parametrize("measured", [["another"], ["this", "another"]])
def test_evaluation_of_other_weights_is_ignored(measured, untrained, tmp_path):
    model, description = untrained
    evaluation = {"split": "validation", "images": 1000, "chance": ERRORS, "center_crop": ERRORS}
    weights = [weights_checksum(model) if each == "this" else each for each in measured]
    evaluation["models"] = [{"name": "run", "weights": each} for each in weights]
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    (tmp_path / "training.json").write_text(json.dumps({"epochs": 3, "val_top1_error": 0.5, "val_top5_error": 0.25}))
    card = model_card.collect(model, description, tmp_path, "served", 1)
    assert card["metrics"].keys() == {"training"}
    page = model_card.as_markdown(card | {"format": "savedmodel", "precision": "float32"})
    assert "Validation after epoch 3 of training: top-1 50.00 %" in page


@pytest.mark.parametrize(
    "name, content",
    [
        *((name, content) for name in ("config.json", "evaluation.json", "training.json") for content in ("", "[1]")),
        ("evaluation.json", '{"models": 1}'),
        ("training.json", '{"epochs": 1}'),
        pytest.param("config.json", "[" * 100_000, id="deep"),
    ],
)
def test_damaged_file_of_the_run_is_refused(name, content, untrained, tmp_path):
    (tmp_path / "model.keras").touch()
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"config.json, evaluation.json or training.json in .* is damaged"):
        model_card.collect(*untrained, tmp_path, "served", 1)


def test_page_says_what_is_unknown(untrained):
    card = model_card.collect(*untrained, None, "served", 3) | {"format": "savedmodel", "precision": "float32"}
    page = model_card.as_markdown(card)
    assert "None" not in page
    fast = "Fast on processors with AVX512_BF16 or AMX"
    assert fast not in page and fast in model_card.as_markdown(card | {"precision": "bfloat16"})
    assert page.startswith("# AlexNet for 10 classes of unrecorded data\n")
    assert "Unknown: there is no config.json next to the model." in page
    assert "an amount that is not measured" in page
