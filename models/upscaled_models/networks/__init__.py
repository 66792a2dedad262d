"""The networks as torch modules, one file for each family of `upscaled_models.families`."""
