"""What a short training is worth, network by network."""
