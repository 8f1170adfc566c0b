"""What keys are worth: guided searches of tiles against exact ones."""
