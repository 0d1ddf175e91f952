"""What alexnet-train is made of: update rules, schedules, callbacks, checkpoints and TensorBoard's logs."""
