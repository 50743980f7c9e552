"""What gateways answer, on each of their routes."""
