"""Networks, the registry of models, and safe weight loading. Never imports `upscaled`.

`registry` and `store` load no torch, so that a front end can read them.
"""
