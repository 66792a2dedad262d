"""PNG files: their structure, pixels and colours, and writing them."""
