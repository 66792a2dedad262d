"""What holds for every exchange, whatever its route."""
