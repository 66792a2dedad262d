"""Access records of finished requests, and the log, the metrics and the traces made of them."""
