"""Prepares models in 8 bits, once and offline: what they run by is `models.quantised` alone.

Compact networks with PReLU do not pass their proof: `fast` is `auto` there. general-x4v3, all in
8 bits, is 36.8 dB from float32 after tuning, of 40. No few of its layers are to blame: each alone
costs about as much (39.5 to 45 dB, untuned; only the first two, 51 and 49).

What was tried beyond: layers fitted one after the other to what the rounded ones before them give,
weights rounded as GPTQ does (arXiv:2210.17323), alpha 0.7: 37.9 dB. With the first 14 of 34
convolutions in bfloat16 besides, and tuned: 40.5 dB on held-out pictures at 1.3 times the speed of
bfloat16 alone; but thin lines in full colours are 31 dB from float32 (38.6 where no range is ever
exceeded), and flat colours up to 25 levels off beside an edge, where 4 are allowed.
animevideov3 and LSDIRCompact end alike (39.7 and 37.3 dB, flats 20 and 24 levels off).
"""
