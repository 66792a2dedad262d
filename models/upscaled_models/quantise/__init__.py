"""Models in 8 bits: `prepare` makes and measures them offline, `files` reads what is to be run.

No compact network with PReLU passes its proof, so `fast` is `auto` for them. The loss is spread
over all layers. Against float32 after tuning, where 40 dB are needed: upscaled-x4 40.7 dB, but its
feature distance to the truth rises by 0.010 to 0.014, where 0.003 are allowed, and 98.6 % of the
values of smooth areas are within 2 levels, where 99.9 % must be (99.7 % with the last four
convolutions in floats); general-x4v3 36.8, or 37.9 with weights rounded as GPTQ does
(arXiv:2210.17323), animevideov3 39.7, LSDIRCompact 37.3. With the first 14 of 34 convolutions in
bfloat16 general-x4v3 reaches 40.5 dB at 1.3 times the speed of bfloat16 alone; but thin lines in
full colours are at 31 dB, and flat colours up to 25 levels off beside an edge, where 4 are allowed.
"""
