"""API keys, credits, rates and stored results. SQL appears nowhere else."""
