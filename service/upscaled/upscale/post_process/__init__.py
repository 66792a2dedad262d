"""Post-processing of a network's result: sanity check, colour correction, tempering."""
