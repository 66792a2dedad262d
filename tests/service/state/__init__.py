"""Keys, credits, rates and results, on real files and real databases."""
