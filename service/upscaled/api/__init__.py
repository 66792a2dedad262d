"""HTTP: request parsing, the contract's answers, image_url fetching. Loads no torch."""
