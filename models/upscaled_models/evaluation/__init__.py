"""How a model's results are measured against ground truth, and shown beside others'."""
