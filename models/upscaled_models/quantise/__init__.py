"""Models in 8 bits: `prepare` makes and measures them offline, `files` reads what is to be run.

No compact network with PReLU that was tried passes its proof, so `fast` is `auto` for them.

upscaled-x4, all in 8 bits and tuned for 1,750 steps, is 40.7 dB from float32, and 42.2, 41.4 and
41.9 dB on 12 photographs, clean, jpeg and camera. There its PSNR to the truth is within 0.02 dB and
its NIQE within 0.08, but the feature distance rises by 0.010, 0.014 and 0.012, where 0.003 are
allowed, and 98.6 % of the values of smooth areas are within 2 levels, where 99.9 % must be. With
the last four convolutions in floats (six of the photographs) 99.7 % are, but the feature distance
rises as before: like the decibels, it is spread over all layers.

general-x4v3, all in 8 bits, reaches 36.8 dB against float32 after tuning, and 40 are needed. The
loss is spread over its layers: each alone costs about as much (39.5 to 45 dB, untuned; only the
first two cost less, 51 and 49).

Also tried: layers fitted one after the other to the results of the rounded ones before them,
weights rounded as GPTQ does (arXiv:2210.17323), `equalised_share` 0.7. All in 8 bits:
general-x4v3 37.9 dB, animevideov3 39.7 dB, LSDIRCompact 37.3 dB. With the first 14 of 34
convolutions in bfloat16 and tuned, general-x4v3 reaches 40.5 dB against float32 on held-out
pictures, at 1.3 times the speed of bfloat16 alone; but thin lines in full colours are at 31 dB
(38.6 where no range is ever exceeded), and flat colours up to 25 levels off beside an edge, where 4
are allowed (20 and 24 for the other two).
"""
