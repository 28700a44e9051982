"""Linear maps with what surrounds them: norms, rotary code, block means, 8 bits."""
