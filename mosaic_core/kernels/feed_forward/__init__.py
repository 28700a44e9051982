"""SwiGLU in one pass over its input."""
