"""Read an upscale request: its body, its parameters and the headers that change the answer."""
