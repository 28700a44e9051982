"""Training: data, loss, recipe, trainer; the weights come out as any model file."""
