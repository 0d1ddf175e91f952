"""Training: configuration, update rules, schedules, callbacks, checkpoints and TensorBoard logs."""
