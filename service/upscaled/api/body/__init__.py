"""The request body: which kind it is, reading it, and what it asks for."""
