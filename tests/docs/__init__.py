"""README and the pages of service/docs, held to the code: all is documented, every block runs."""
