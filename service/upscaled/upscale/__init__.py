"""The core: tiles, scheduler, post-processing, and the choice of the model."""
