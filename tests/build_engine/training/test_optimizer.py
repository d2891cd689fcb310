"""The one-cycle schedule against its formula in NumPy, and the slow trunk against AdamW at factor 1."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnedge.build_engine.training.optimizer import OneCycle, SlowTrunkAdamW


def one_cycle(step: int, peak: float, total: int, warmup: float) -> float:
    """Half a cosine up to the peak, half a cosine down to zero, in float64."""
    progress = step / total
    if progress < warmup:
        return peak * (1 - np.cos(np.pi * progress / warmup)) / 2
    return peak * (1 + np.cos(np.pi * min(1.0, (progress - warmup) / (1 - warmup)))) / 2


@given(
    total=st.integers(1, 100_000),
    share=st.floats(0, 1.2),
    peak=st.floats(1e-6, 1.0),
    warmup=st.sampled_from([0.05, 0.1, 0.3, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_schedule_is_two_half_cosines(total, share, peak, warmup):
    step = round(share * total)
    assert float(OneCycle(peak, total, warmup)(step)) == pytest.approx(
        one_cycle(step, peak, total, warmup), abs=2e-5 * peak
    )


def test_schedule_starts_and_ends_at_zero_and_peaks_after_the_warm_up():
    schedule = OneCycle(2.0, 1000)
    assert float(schedule(0)) == 0.0
    assert float(schedule(100)) == pytest.approx(2.0)
    assert float(schedule(1000)) == pytest.approx(0.0, abs=1e-6)
    assert float(schedule(5000)) == pytest.approx(0.0, abs=1e-6)  # an epoch more than planned does no harm


def small_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((4,))
    x = keras.layers.Dense(3, name="trunk_dense")(image)
    x = keras.layers.BatchNormalization(name="trunk_bn")(x)
    return keras.Model(image, keras.layers.Dense(2, name="score_fr")(x))


def change_after_one_step(**options: Any) -> dict[str, np.ndarray]:
    """How far each trainable variable moves in one step, all gradients random but the same every time."""
    model = small_model()
    optimizer = SlowTrunkAdamW(0.01, fast_layers=("score_fr",), **options)
    optimizer.build(model.trainable_variables)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    random = np.random.default_rng(2)
    gradients = [keras.ops.convert_to_tensor(random.standard_normal(value.shape), "float32") for value in before]
    optimizer.apply(gradients)
    assert optimizer.weight_decay == options["weight_decay"], "the next step would decay otherwise"
    after = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    return {v.path: new - old for v, old, new in zip(model.trainable_variables, before, after, strict=True)}


@pytest.mark.parametrize("factor", [0.2, 0.5, 0.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_trunk_moves_by_its_share_of_a_step(factor, weight_decay):
    """The step of the gradient and that of the decay alike: a trunk at factor 0 stands still."""
    full = change_after_one_step(trunk_factor=1.0, weight_decay=weight_decay)
    slow = change_after_one_step(trunk_factor=factor, weight_decay=weight_decay)
    assert len(full) == 6
    for path, change in slow.items():
        share = 1.0 if path.startswith("score_fr") else factor
        assert np.abs(full[path]).min() > 0.005, "Adam's first step is about the learning rate"
        np.testing.assert_allclose(change, share * full[path], rtol=0, atol=1e-5)


def test_step_at_factor_1_is_that_of_keras_adamw():
    ours = change_after_one_step(trunk_factor=1.0, weight_decay=0.1)
    model = small_model()
    kernel = keras.ops.convert_to_numpy(model.trainable_variables[0])
    gradient = np.random.default_rng(2).standard_normal(kernel.shape)
    # Loshchilov & Hutter (arXiv:1711.05101), first step: m̂ = g, v̂ = g²
    expected = -0.01 * (gradient / (np.abs(gradient) + 1e-7) + 0.1 * kernel)
    np.testing.assert_allclose(ours["trunk_dense/kernel"], expected, rtol=0, atol=1e-5)


def test_biases_and_batch_norms_do_not_decay():
    without = change_after_one_step(weight_decay=0.0)
    decaying = change_after_one_step(weight_decay=0.5)
    changed = {path for path in without if np.abs(decaying[path] - without[path]).max() > 1e-6}
    assert changed == {"trunk_dense/kernel", "score_fr/kernel"}


def test_config_survives_a_round_trip():
    optimizer = SlowTrunkAdamW(
        OneCycle(0.5, 200, warmup=0.3), weight_decay=0.01, global_clipnorm=5.0, trunk_factor=0.3, fast_layers=("a", "b")
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, SlowTrunkAdamW)
    assert again.get_config() == optimizer.get_config()
    assert (again.trunk_factor, again.fast_layers, again.global_clipnorm) == (0.3, ("a", "b"), 5.0)


def test_schedule_survives_a_round_trip():
    schedule = OneCycle(0.5, 200, warmup=0.3)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert isinstance(again, OneCycle)
    assert [float(again(step)) for step in (0, 30, 60, 120)] == [float(schedule(step)) for step in (0, 30, 60, 120)]
