"""The published network shapes and our own."""
