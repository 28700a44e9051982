"""What the model computes, one folder an operation: a readable twin and faster backends of it."""
