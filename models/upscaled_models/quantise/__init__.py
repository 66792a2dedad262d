"""Models in 8 bits: `prepare` makes and measures them offline, `files` reads what is to be run.

Of the compact networks with PReLU only upscaled-x4 passes its proof, for `fast`, tuned by features
as well as by pixels (`default/CARD.md`). The others run at `fast` as at `auto`: the loss is spread
over all layers. Against float32 after tuning by pixels, where 40 dB are needed: general-x4v3 36.8,
or 37.9 with weights rounded as GPTQ does (arXiv:2210.17323), animevideov3 39.7, LSDIRCompact 37.3.
With the first 14 of 34 convolutions in bfloat16 general-x4v3 reaches 40.5 dB at 1.3 times the speed
of bfloat16 alone; but thin lines in full colours are at 31 dB, and flat colours up to 25 levels off
beside an edge, where 4 are allowed.
"""
