"""One module per step, each from the revision before it. A released step is never edited."""
