"""Prepares models in 8 bits, once and offline: what they run by is `models.quantised` alone.

general-x4v3 does not pass its proof: 36.8 dB of 40, tuned. No few of its layers are to blame: each
alone in 8 bits costs about as much (39.5 to 45 dB, untuned; only the first two, 51 and 49). Of all
34 in 8 bits (32.0 dB), the worst 4, 8, 12, 16 or 20 taken back into floats give 32.5, 33.4, 33.9,
34.6 or 35.7 dB. By then at most a quarter of the time would be saved. So `fast` is `auto` there.
"""
