"""What is done with a network's result: sanity check, colour correction, tempering."""
