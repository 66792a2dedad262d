"""Networks, the registry of models, and safe weight loading. Never imports `service`.

`models.registry` and `models.store` load no torch, so that a front end can read them.
"""
