"""Shipped recipes: how official models are rounded to 8 bits, without their weights.

NAME.json           of which weights, which layers stay in floats, and the proof of each form
NAME.safetensors    the input levels of every layer: kilobytes
"""
