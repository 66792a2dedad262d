"""An MCP server: tools by which language models use a running upscaled service. Loads no torch."""
