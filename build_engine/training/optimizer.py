"""AdamW with a one-cycle schedule and a slower learning rate for the pretrained trunk."""

from __future__ import annotations

import math

import keras


@keras.saving.register_keras_serializable(package="fcnedge")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine warm-up to `peak` over the first `warmup` share of the steps, then cosine decay to zero.

    Source: Smith & Topin, "Super-Convergence" (arXiv:1708.07120), with cosine legs.
    """

    def __init__(self, peak: float, total_steps: int, warmup: float = 0.1):
        self.peak, self.total_steps, self.warmup = peak, total_steps, warmup

    def __call__(self, step):
        ops = keras.ops
        progress = ops.cast(step, "float32") / self.total_steps
        rising = 0.5 * (1 - ops.cos(math.pi * ops.clip(progress / self.warmup, 0, 1)))
        falling = 0.5 * (1 + ops.cos(math.pi * ops.clip((progress - self.warmup) / (1 - self.warmup), 0, 1)))
        return self.peak * ops.where(progress < self.warmup, rising, falling)

    def get_config(self):
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup": self.warmup}


@keras.saving.register_keras_serializable(package="fcnedge")
class SlowTrunkAdamW(keras.optimizers.AdamW):
    """AdamW whose learning rate is multiplied by `trunk_factor` for every layer but the named ones."""

    def __init__(self, *args, trunk_factor: float = 0.2, fast_layers: tuple[str, ...] = (), **kwargs):
        super().__init__(*args, **kwargs)
        self.trunk_factor, self.fast_layers = trunk_factor, tuple(fast_layers)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

    def build(self, variables):
        super().build(variables)
        self._is_fast = [variable.path.split("/")[0] in self.fast_layers for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        if not self._is_fast[self._get_variable_index(variable)]:
            learning_rate = learning_rate * self.trunk_factor
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables):
        decay = self.weight_decay
        for fast, share in ((True, 1.0), (False, self.trunk_factor)):
            self.weight_decay = decay * share  # Keras multiplies it by the learning rate of the schedule
            super()._apply_weight_decay([v for v in variables if self._is_fast[self._get_variable_index(v)] is fast])
        self.weight_decay = decay

    def get_config(self):
        return super().get_config() | {"trunk_factor": self.trunk_factor, "fast_layers": self.fast_layers}
