"""Networks, the registry of models, safe loading, and the backends. Never imports `upscaled`.

`registry` and `store` load no torch, so that a front end can read them.
"""
