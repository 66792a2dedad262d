"""README and the pages of the service, held to the code: all is documented, every block runs."""
