"""The Mosaic network: configuration, layers, noise, checkpoints and the rollout."""
