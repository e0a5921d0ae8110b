"""Where the error of a quantized model comes from."""
