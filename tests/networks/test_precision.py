"""The choice of bfloat16, and conversion between precisions."""

import numpy as np
import pytest

from alexnet_tf.model import build_alexnet, open_model
from alexnet_tf.networks import precision

CPUINFO = {
    "flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile": ["amx_bf16", "avx512_bf16"],
    "model name\t: AMD EPYC 9R14\nflags\t\t: fpu avx2 avx512f avx512_bf16 vaes\n": ["avx512_bf16"],
    "flags\t\t: fpu sse4_2 avx2 fma avx512f avx512_vnni": [],
    "Features\t: fp asimd sve i8mm bf16 dgh\n": ["bf16"],
    "": [],
}
AMX = next(iter(CPUINFO))


def not_measured():
    raise AssertionError("a product is timed, although the hardware decides")


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this machine fast or slow in bfloat16."""

    def make(fast):
        monkeypatch.setattr(
            precision, "_on_this_machine", lambda: (fast, "it has units" if fast else "it has no units")
        )

    return make


@pytest.fixture(scope="module")
def mixed():
    return build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125, dtype="mixed_bfloat16")


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("uint8")


class TestChoice:
    @pytest.mark.parametrize("cpuinfo, units", CPUINFO.items())
    def test_units(self, cpuinfo, units):
        assert precision.bfloat16_units(cpuinfo) == units

    @pytest.mark.parametrize("bfloat16, fast", [(600.0, True), (200.0, True), (110.0, False), (4.0, False)])
    def test_processor_with_units_is_timed(self, bfloat16, fast, monkeypatch):
        monkeypatch.setattr(precision, "product_rates", lambda: {"float32": 100.0, "bfloat16": bfloat16})
        assert precision.is_bfloat16_fast(AMX, []) == (
            fast,
            "the processor has amx_bf16, avx512_bf16; a matrix product runs at "
            f"{bfloat16:.0f} GFLOP/s in bfloat16, 100 in float32",
        )

    def test_processor_without_units_is_not_timed(self, monkeypatch):
        monkeypatch.setattr(precision, "product_rates", not_measured)
        fast, reason = precision.is_bfloat16_fast("flags : avx2 fma", [])
        assert not fast and reason == "the processor has none of amx_bf16, avx512_bf16"

    @pytest.mark.parametrize(
        "capabilities, fast",
        [([(8, 0)], True), ([(9, 0), (8, 6)], True), ([(7, 5)], False), ([(9, 0), (6, 0)], False), ([None], False)],
    )
    def test_gpus_decide(self, capabilities, fast, monkeypatch):
        monkeypatch.setattr(precision, "product_rates", not_measured)
        assert precision.is_bfloat16_fast(AMX, capabilities)[0] == fast

    @pytest.mark.parametrize("fast, chosen", [(True, "mixed_bfloat16"), (False, "float32")])
    def test_auto_prints_its_choice(self, fast, chosen, machine, capsys):
        machine(fast)
        assert precision.choose("auto") == chosen
        assert capsys.readouterr().out == f"Precision {chosen}: {'it has units' if fast else 'it has no units'}.\n"

    def test_slow_bfloat16_is_reported(self, machine, capsys):
        machine(False)
        assert precision.choose("mixed_bfloat16") == "mixed_bfloat16"
        assert capsys.readouterr().out == "Precision mixed_bfloat16 will be slow here: it has no units.\n"

    @pytest.mark.parametrize("name", ["float32", "mixed_float16"])
    def test_other_precisions_do_not_look_at_the_machine(self, name, monkeypatch):
        monkeypatch.setattr(precision, "_on_this_machine", not_measured)
        assert precision.choose(name) == name

    def test_product_rates(self):
        measured = precision.product_rates(side=64)
        assert sorted(measured) == ["bfloat16", "float32"] and min(measured.values()) > 0


class TestOtherPrecision:
    @pytest.mark.parametrize("fast, dtype", [(True, "bfloat16"), (False, "float32")])
    def test_bfloat16_network_opens_in_the_fast_precision(self, fast, dtype, machine, mixed, tmp_path):
        machine(fast)
        mixed.save(tmp_path / "model.keras")
        opened = open_model(tmp_path / "model.keras")
        assert {layer.compute_dtype for layer in opened.layers if layer.name.startswith("conv")} == {dtype}
        for weight, expected in zip(opened.get_weights(), mixed.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        np.testing.assert_allclose(opened(IMAGES), mixed(IMAGES), atol=0.02)

    def test_float32_network_is_returned(self):
        model = build_alexnet("testing", 10)
        assert precision.in_float32(model) is precision.computed_where_fast(model) is model

    @pytest.mark.parametrize("variant", ["testing", "batch_norm"])
    def test_stored_in_bfloat16_dtypes(self, variant):
        model = build_alexnet(variant, 10, image_px=56 if variant == "testing" else 67)
        stored = precision.stored_in_bfloat16(model)
        for layer in stored.layers:
            learned = layer.name.startswith(("conv", "fc"))
            assert {weight.dtype for weight in layer.weights} <= {"bfloat16" if learned else "float32"}, layer.name
        assert stored.get_layer("fc8").compute_dtype == stored.get_layer("softmax").compute_dtype == "float32"
        assert stored.get_layer("fc7").compute_dtype == "bfloat16"

    def test_stored_in_bfloat16_probabilities(self, mixed):
        whole = precision.in_float32(mixed)
        stored = precision.stored_in_bfloat16(whole)(IMAGES).numpy()
        assert stored.dtype == np.float32
        np.testing.assert_allclose(stored, whole(IMAGES), atol=0.02)
        np.testing.assert_allclose(stored.sum(axis=1), 1, atol=1e-6)
